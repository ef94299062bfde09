"""``precision: auto`` uses bf16 where it is the faster of the two."""

import pytest
import torch

from apao import devices


@pytest.mark.parametrize(
    ("vendor", "amx", "avx512_bf16", "expected"),
    [
        ("GenuineIntel", True, True, True),
        ("GenuineIntel", False, True, False),
        ("GenuineIntel", False, False, False),
        ("AuthenticAMD", False, True, True),
        ("AuthenticAMD", False, False, False),
        (None, False, True, False),
    ],
)
def test_auto_uses_bf16_on_processors_that_multiply_it_faster(
    vendor, amx, avx512_bf16, expected, monkeypatch, tmp_path
):
    facts = tmp_path / "cpuinfo"
    if vendor:
        facts.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu sse\n\n")
    monkeypatch.setattr(devices, "CPU_FACTS", facts)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert devices.uses_bf16("auto", torch.device("cpu")) is expected
    assert devices.uses_bf16("bf16", torch.device("cpu"))
    assert not devices.uses_bf16("fp32", torch.device("cpu"))


def test_a_numbered_processor():
    assert devices.pick_device("cpu:0").type == "cpu"
