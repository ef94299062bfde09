"""Small files that would need much memory or time are refused or read within bounds, in a limited process."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.processes import bounded
from hostile import meet
from targets import CODES_JSON, CONFIG, EXPECTED, TABLE, TARGETS, WEIGHTS, closed, compressed, opened, parquet

MEGABYTE = 1 << 20


def zeros(megabytes, byte=b"\0"):
    """Gzip of this many megabytes of one byte, about a thousandth of that size."""
    return gzip.compress(byte * MEGABYTE, mtime=0) * megabytes


def changed(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new).encode()


def golden(**sections):
    return json.dumps(json.loads(EXPECTED) | sections).encode()


def config(**sizes):
    return json.dumps(json.loads(CONFIG) | sizes).encode()


def header(file, **tensor):
    """A safetensors file with another description of its first tensor."""
    text, _, rest = opened(file).partition(b"\n\n")
    said = json.loads(text)
    name = next(name for name in said if name != "__metadata__")
    said[name] |= tensor
    return closed(json.dumps(said).encode() + b"\n\n" + rest)


def repeated(rows):
    """Parquet of many equal rows, stored as one value and a count."""
    table = pa.table({"user": pa.array(np.zeros(rows, np.int32)), "item": pa.array(np.zeros(rows, np.int32))})
    file = pa.BufferOutputStream()
    pq.write_table(table, file, row_group_size=rows)
    return file.getvalue().to_pybytes()


def tensors(count):
    """A safetensors file with this many empty tensors."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return closed(json.dumps({f"a{i}": empty for i in range(count)}).encode() + b"\n\n")


def metadata(start, middle, times, end=b""):
    """A line of an Amazon file, with its middle repeated this often."""
    return compressed(start + middle * times + end)


def fractions():
    """Times of increasing resolution, so that all earlier ones are converted again and again."""
    return TABLE + b"".join(b"u,i,.%s1,T\n" % (b"0" * (i // 4_000)) for i in range(100_000))


TITLE = b"{'asin': 'i0', 'title': '"
NEST = b"[" * MEGABYTE

BOMBS = {
    "gzip: one line": ("amazon", lambda: zeros(1000)),
    "gzip: blank lines": ("amazon", lambda: zeros(10, b"\n")),
    "literal: nested": ("amazon-items", lambda: metadata(b"", b"[", 900_000)),
    "literal: braces": ("amazon-items", lambda: metadata(b"", b"{", 90, b"1")),
    "literal: signs": ("amazon-items", lambda: metadata(b"", b"-", 900_000, b"1")),
    "literal: sums": ("amazon-items", lambda: metadata(b"", b"1+", 450_000, b"1")),
    "literal: calls": ("amazon-items", lambda: metadata(b"a", b"()", 450_000)),
    "literal: numbers": ("amazon-items", lambda: metadata(b"{'asin': [", b"1,", 250_000, b"]}")),
    "literal: strings": ("amazon-items", lambda: metadata(b"", b"''", 500_000)),
    "literal: f-strings": ("amazon-items", lambda: metadata(b"", b"f'{", 200, b"}'" * 200)),
    "literal: digits": ("amazon-items", lambda: metadata(b"", b"9", 1_000_000)),
    "literal: hexadecimal": ("amazon-items", lambda: metadata(b"{'asin': 'i0', 'x': 0x", b"f", 1_000_000, b"}")),
    "text: tags": ("amazon-items", lambda: metadata(TITLE, b"<a", 500_000, b"'}")),
    "text: entities": ("amazon-items", lambda: metadata(TITLE, b"&", 1_000_000, b"'}")),
    "text: names of entities": ("amazon-items", lambda: metadata(TITLE, b"&ampabcdefghijklmn", 50_000, b"'}")),
    "JSON lines: nested": ("yelp", lambda: NEST[:-1]),
    "csv: one line": ("csv", lambda: TABLE + b"u" * (50 * MEGABYTE)),
    "csv: open quote": ("csv", lambda: TABLE + b'"' + b"u,\n" * (10 * MEGABYTE)),
    "csv: many columns": ("csv", lambda: b",".join(b"timestamp%d" % i for i in range(50_000))),
    "csv: long names": ("csv", lambda: b",".join(b"timestamp" * 10_000 for _ in range(20))),
    "csv: digits of fractions": (
        "csv-times",
        lambda: TABLE + b"".join(b"u,i,0.%s1,T\n" % (b"0" * (i % 30)) for i in range(100_000)),
    ),
    "csv: exponents": ("csv-times", lambda: TABLE + b"u,i,1E+99,T\n" * 1000),
    "csv: digits": ("csv", lambda: TABLE.replace(b"1400000000", b"1" * 100_000)),
    "JSON: nested": ("codes-json", lambda: NEST),
    "JSON: digits": ("codes-json", lambda: CODES_JSON.replace('"<a_0>"', "9" * 1_000_000).encode()),
    "JSON: long code": ("codes-json", lambda: CODES_JSON.replace("<a_0>", "<a_" + "9" * 1_000_000 + ">").encode()),
    "run: a long name": ("run", lambda: b"a" * (10 * MEGABYTE) + b"/tiger/ce/seed1"),
    "run: many parts": ("run", lambda: b"shop/tiger/ce" + b"+a" * MEGABYTE + b"+/seed1"),
    "run: many values": ("run", lambda: b"shop/tiger/ce" + b"+a=1" * MEGABYTE + b"=/seed1"),
    "run: digits": ("run", lambda: b"shop/tiger/ce+a=" + b"1" * MEGABYTE + b"/seed1"),
    "safetensors: a long header": ("model", lambda: (2**63 - 1).to_bytes(8, "little") + WEIGHTS[8:]),
    "safetensors: a large shape": ("model", lambda: header(WEIGHTS, shape=[2**31, 2**31])),
    "safetensors: much data": ("model", lambda: header(WEIGHTS, data_offsets=[0, 2**62])),
    "safetensors: many tensors": ("model", lambda: tensors(20_000)),
    "parquet: equal rows": ("histories", lambda: repeated(4_000_000)),
    "parquet: large ids": ("histories", lambda: parquet(pd.DataFrame({"user": [0] * 4, "item": [2**62] * 4}))),
    "golden: nested": ("golden", lambda: NEST),
    "golden: long history": ("golden", lambda: golden(examples=[{"history": [0] * 200_000, "target": 1}])),
    "golden: many beams": ("golden", lambda: changed(EXPECTED, '"beam_size": 2', '"beam_size": 1000000000000')),
    "golden: layers": ("golden-config", lambda: config(num_hidden_layers=10**7)),
    "golden: width": ("golden-config", lambda: config(hidden_size=10**7, head_dim=5 * 10**6)),
    "golden: inner width": ("golden-config", lambda: config(intermediate_size=10**7)),
    "golden: beyond numbers": ("golden-config", lambda: config(intermediate_size=10**40)),
}
"""Name to target and the function that makes its file. Sizes are far beyond the bounds, to avoid borderline cases."""


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """Import backbones and objectives once here, instead of in each forked process."""
    meet(TARGETS["golden"], TARGETS["golden"].seeds[0])


@pytest.mark.parametrize("name", BOMBS)
def test_bounded_memory_and_time(name):
    target, made = BOMBS[name]
    content = made()
    outcome = bounded(lambda: meet(TARGETS[target], content))
    assert outcome == "done"
