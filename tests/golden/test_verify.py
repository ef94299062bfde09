"""The command that verifies a golden folder: other folders, changed numbers, damaged files."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from apao.backbones.base import BACKBONES
from apao.cli import app
from apao.errors import UserError
from apao.verify.compare import Quantity, report, verify

SHIPPED = Path(__file__).parent
EXPECTED = json.loads((SHIPPED / "expected.json").read_text())
REMOVED = object()


def changed(data, *key, value):
    """Replace or remove the value at ``key``."""
    for part in key[:-1]:
        data = data[part]
    if value is REMOVED:
        del data[key[-1]]
    else:
        data[key[-1]] = value


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped folder without values, to which a test adds its own."""
    for path in SHIPPED.glob("*-tiny.*"):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def write(folder, *sections, backbone="t5"):
    """``expected.json`` with some sections of one backbone's values, to change and ``save``."""
    expected = json.loads(json.dumps(EXPECTED))
    expected["backbones"] = {backbone: {key: expected["backbones"][backbone][key] for key in sections}}
    save(folder, expected)
    return expected


def save(folder, expected):
    (folder / "expected.json").write_text(json.dumps(expected))


def test_a_folder_of_other_sizes_agrees(tmp_path):
    from other_folder import ETAS, TAUS
    from other_folder import write as make

    make(tmp_path)
    found = verify(tmp_path, 1e-5)
    assert [(each.name, each.remark) for each in found if not each.agrees] == []
    assert len(found) == 2 + 3 * (3 + 2 * len(TAUS) + 2 * 4 * len(ETAS)) + 2 * 2


def test_the_report_ends_with_what_was_found():
    def lines(*differences):
        return list(report([Quantity("llama", "ce loss", d, d <= 1e-4, "") for d in differences], 1e-4))

    assert lines(1e-6, 3e-6) == [
        "llama  ce loss  1.0e-06  ok",
        "llama  ce loss  3.0e-06  ok",
        "2 quantities, largest difference 3.0e-06, tolerance 1e-04: all agree",
    ]
    assert lines(1e-6, 2.0)[-1] == "2 quantities, largest difference 2.0e+00, tolerance 1e-04: 1 differs"
    assert lines(math.nan, 2.0)[-1] == "2 quantities, largest difference nan, tolerance 1e-04: 2 differ"
    assert next(report([Quantity("-", "x", 0.0, True, "why")], 2.5e-4)) == "-  x  0.0e+00  ok (why)"


@pytest.mark.parametrize("spoiled", [math.nan, math.inf, 0.5])
@pytest.mark.parametrize(
    ("key", "backbone", "name", "place"),
    [
        (("ce", "loss"), "llama", "ce loss", "found"),
        (("ce", "ce"), "llama, packed", "ce ce", "found"),
        (("ce", "token_logp", 3, 4), "llama, packed", "ce token_logp", "example 3, position 4: found"),
        (("msl", "2.0", "loss"), "llama", "msl tau=2.0 loss", "found"),
        (("apao-pointwise", "0.5", "loss"), "llama", "apao-pointwise eta=0.5 loss", "found"),
        (("apao-pairwise", "0.5", "ce"), "llama", "apao-pairwise eta=0.5 ce", "found"),
        (("apao-pairwise", "0.0", "prefix_losses", 2), "llama", "apao-pairwise eta=0.0 prefix_losses", "position 2: "),
        (("apao-pointwise", "0.0", "weights", 0), "llama", "apao-pointwise eta=0.0 weights", "position 0: found"),
        (("beam", "scores", 2, 7), "llama", "beam scores", "user 10, rank 7: found"),
    ],
)
def test_a_spoiled_number_is_named(folder, key, backbone, name, place, spoiled):
    expected = write(folder, key[0], backbone="llama")
    changed(expected, "backbones", "llama", *key, value=spoiled)
    save(folder, expected)
    wrong = {(each.backbone, each.name): each for each in verify(folder, 1e-4) if not each.agrees}
    assert {label for _, label in wrong} <= {name, "beam codes"}
    assert wrong[backbone, name].remark.startswith(place)
    assert not wrong[backbone, name].difference <= 1e-4


def test_one_spoiled_number_ends_with_status_1(folder):
    expected = write(folder, "ce")
    assert CliRunner().invoke(app, ["verify", str(folder)]).exit_code == 0
    expected["backbones"]["t5"]["ce"]["token_logp"][11][0] += 3e-4
    save(folder, expected)
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if "DIFFERS" in line]
    assert line.startswith("tiger  ce token_logp") and "3.0e-04  DIFFERS (example 11, position 0: found -" in line
    assert done.output.splitlines()[-1].endswith("largest difference 3.0e-04, tolerance 1e-04: 1 differs")
    assert CliRunner().invoke(app, ["verify", str(folder), "--tolerance", "1e-3"]).exit_code == 0


def test_spoiled_ids_and_counts_are_named_whatever_the_tolerance(folder):
    expected = write(folder)
    expected["vocabulary"]["<b_7>"] += 1
    expected["valid_prefixes"][1] += 1
    save(folder, expected)
    vocabulary, prefixes = verify(folder, 2.0)
    assert vocabulary.remark.startswith("<b_7>: found ") and not vocabulary.agrees
    assert prefixes.remark == "position 1: found 87, expected 88" and not prefixes.agrees
    del expected["vocabulary"]["<b_7>"], expected["valid_prefixes"]
    save(folder, expected)
    (vocabulary,) = verify(folder, 2.0)
    assert vocabulary.remark.startswith("<b_7>: found ") and vocabulary.remark.endswith("expected nan")


def swapped(values, user, place):
    codes = values["codes"][user]
    codes[place], codes[place + 1] = codes[place + 1], codes[place]


def test_beams_may_swap_only_where_scores_tie(folder):
    expected = write(folder, "beam")
    values = expected["backbones"]["t5"]["beam"]
    swapped(values, 1, 4)
    save(folder, expected)
    codes, scores = verify(folder, 1e-4)[2:]
    assert codes.difference == 2 and codes.remark.startswith("user 3, rank 4: found <a_")
    gap = values["scores"][1][4] - values["scores"][1][5]
    codes, scores = verify(folder, gap * 1.01)[2:]
    assert codes.agrees and codes.remark == "2 at another rank, among equal scores"
    # Each score is compared with that of the same code, so the gap shows: the scores were not swapped.
    assert scores.difference == pytest.approx(gap, abs=1e-5)

    # A code that is not among the expected ones is not a swap, however close its score.
    expected = write(folder, "beam")
    expected["backbones"]["t5"]["beam"]["codes"][0][19] = ["<a_0>", "<b_0>", "<c_0>", "<d_99>"]
    save(folder, expected)
    assert not verify(folder, 10.0)[2].agrees


def test_sections_may_be_absent(folder):
    expected = write(folder, "msl", backbone="llama")
    for key in ("vocabulary", "valid_prefixes", "negatives", "beta", "interactions"):
        del expected[key]
    del expected["backbones"]["llama"]["msl"]["1.0"], expected["backbones"]["llama"]["msl"]["2.0"]["ce"]
    save(folder, expected)
    (folder / "t5-tiny.safetensors").unlink()
    assert [(each.backbone, each.name) for each in verify(folder, 1e-4)] == [
        ("llama", "msl tau=2.0 loss"),
        ("llama, packed", "msl tau=2.0 loss"),
    ]


def message_of(folder):
    with pytest.raises(UserError) as error:
        verify(folder, 1e-4)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


T5 = ("backbones", "t5")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("codes",), REMOVED, "codes: required, but not given"),
        (("codes", "7"), REMOVED, "interactions.0: item 7 has no code; codes has 399 items"),
        (("codes", "7", 1), "<c_1>", "codes: item '7': expected a token like <b_0> at level 2, found '<c_1>'"),
        (("codes", "7"), ["<a_1>"], "codes: item '7' has 1 tokens, item '0' has 4"),
        (("examples",), REMOVED, "examples: required by backbones.t5, but not given"),
        (("examples", 2, "target"), REMOVED, "examples.2.target: required, but not given"),
        (("examples", 2, "target"), 400, "examples.2: item 400 has no code; codes has 400 items"),
        (("examples", 2, "history"), [], "examples.2.history: "),
        (("examples", 2, "history"), [0] * 1001, "examples.2.history: List should have at most 1000 items"),
        (("valid_prefixes", 2), 10**400, "valid_prefixes: expected a number, found "),
        (("vocabulary", "<a_0>"), 10**400, "vocabulary: expected a number, found "),
        ((*T5, "ce", "loss"), 10**400, "backbones.t5.ce.loss: expected a number, found "),
        (("interactions", "9", 3), -1, "interactions.9: item -1 has no code; codes has 400 items"),
        (("interactions", "10"), REMOVED, "interactions.10: backbones.t5.beam needs two items or more"),
        (("negatives",), REMOVED, "negatives: required by backbones.t5, but not given"),
        (("negatives", 4), [1, 2], "negatives.4: expected 20 entries, found 2"),
        (("negatives", 4, 0), "1", "negatives.4.0: Input should be a valid integer, found '1'"),
        (("beta",), REMOVED, "beta: required by backbones.t5, but not given"),
        (("beta",), -1, "beta: Input should be greater than or equal to 0, found -1"),
        (("valid_prefixes",), [1, 2], "valid_prefixes: expected 4 entries, found 2"),
        ((*T5, "ce", "token_logp"), REMOVED, "backbones.t5.ce.token_logp: required, but not given"),
        ((*T5, "ce", "token_logp", 5), [0.0], "backbones.t5.ce.token_logp.5: expected 5 entries, found 1"),
        ((*T5, "ce", "token_logp", 5, 1), "-4", "backbones.t5.ce.token_logp: expected a number, found '-4'"),
        ((*T5, "ce", "loss"), [1.0], "backbones.t5.ce.loss: expected a number, found"),
        ((*T5, "ce"), {}, "backbones.t5.ce.loss: required, but not given"),
        ((*T5, "msl", "zero"), {"loss": 1.0}, "backbones.t5.msl.zero: "),
        ((*T5, "apao-pairwise", "0.5", "weights"), [1.0], "backbones.t5.apao-pairwise.0.5.weights: expected 4 entries"),
        ((*T5, "apao-pairwse"), {}, "backbones.t5.apao-pairwse: no such section; did you mean 'apao-pairwise'?"),
        (("backbones", "bert"), {}, "backbones.bert: Input should be 't5' or 'llama'"),
        ((*T5, "beam", "scores", 0), [], "backbones.t5.beam.scores.0: expected 20 entries, found 0"),
        ((*T5, "beam", "users"), REMOVED, "backbones.t5.beam.users: required, but not given"),
    ],
)
def test_a_malformed_value_is_named(folder, key, value, message):
    expected = write(folder, "ce", "msl", "apao-pairwise", "beam")
    changed(expected, *key, value=value)
    save(folder, expected)
    assert message_of(folder).startswith(f"expected.json: {message}")


def test_broken_files_are_named(folder):
    assert message_of(folder) == "expected.json: not found; a golden folder needs it"
    (folder / "expected.json").write_text('{"codes": ')
    assert message_of(folder).startswith("expected.json: not valid JSON (")
    save(folder, {"codes": EXPECTED["codes"], "note": "no values", "backbones": {"t5": {"note": "none"}}})
    assert message_of(folder).startswith("expected.json: nothing to verify")
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1 and "nothing to verify" in done.output

    write(folder, "ce")
    weights, config = folder / "t5-tiny.safetensors", folder / "t5-tiny.config.json"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    assert message_of(folder).startswith("t5-tiny.safetensors: not a whole safetensors file (")
    weights.unlink()
    needs = "backbones.t5 needs one t5*.safetensors with its .config.json; found"
    assert message_of(folder).endswith(f"{needs} none")
    for name in ("t5-one", "t5-two"):
        (folder / f"{name}.safetensors").write_bytes(content)
        shutil.copyfile(config, folder / f"{name}.config.json")
    assert message_of(folder).endswith(f"{needs} t5-one.safetensors, t5-two.safetensors")
    for file in folder.glob("t5-two*"):
        file.unlink()
    assert all(each.agrees for each in verify(folder, 1e-4))
    (folder / "t5-one.config.json").unlink()
    assert message_of(folder) == "t5-one.config.json: not found; a golden folder needs it"


NOT_OURS = [
    ("t5", {"feed_forward_proj": "gated-gelu"}, "feed_forward_proj: 'gated-gelu' is not supported; "),
    ("t5", {"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon: 1e-05 is not supported; this backbone has 1e-06"),
    ("t5", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets: 16 is not supported"),
    ("t5", {"relative_attention_max_distance": 64}, "relative_attention_max_distance: 64 is not supported"),
    ("t5", {"tie_word_embeddings": False}, "tie_word_embeddings: False is not supported; this backbone has True"),
    ("t5", {"scale_decoder_outputs": False}, "scale_decoder_outputs: False is not supported"),
    ("t5", {"d_kv": None}, "d_kv: expected a whole number from 1 to 16777216, found None"),
    ("t5", {"d_ff": 10**40}, "d_ff: expected a whole number from 1 to 16777216, found 1000"),
    ("t5", {"vocab_size": 70}, "vocab_size: 70 does not match the codes, which have 67 tokens"),
    ("llama", {"rope_theta": 10000.0}, "rope_theta: 10000.0 is not supported; this backbone has 500000.0"),
    ("llama", {"rope_theta": None}, "rope_theta: 10000.0 (the default of transformers, as the key is missing) is not"),
    ("llama", {"rope_parameters": {"rope_theta": 1.0}}, "rope_parameters.rope_theta: 1.0 is not supported"),
    ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type: 'yarn' is not supported"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type: 'linear' is not supported"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling: expected keys and values, found 'linear'"),
    ("llama", {"rms_norm_eps": 1e-6}, "rms_norm_eps: 1e-06 is not supported; this backbone has 1e-05"),
    ("llama", {"num_key_value_heads": 2}, "num_key_value_heads: 2 is not supported; this backbone has 4"),
    ("llama", {"head_dim": 16}, "head_dim: 16 is not supported; this backbone has 8"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported; this backbone has 'silu'"),
    ("llama", {"attention_bias": True}, "attention_bias: True is not supported; this backbone has False"),
    ("llama", {"mlp_bias": True}, "mlp_bias: True is not supported"),
    ("llama", {"tie_word_embeddings": False}, "tie_word_embeddings: False is not supported"),
    ("llama", {"num_attention_heads": 32, "num_key_value_heads": 32}, "hidden 32 must be a multiple of 2 * heads"),
]


@pytest.mark.parametrize(("backbone", "values", "message"), NOT_OURS)
def test_a_model_that_is_not_ours_is_refused(folder, backbone, values, message):
    write(folder, "ce", backbone=backbone)
    file = folder / f"{backbone}-tiny.config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    assert message_of(folder).startswith(f"{file.name}: {message}")


@pytest.mark.parametrize("sizes", [{"num_layers": 10**7}, {"d_ff": 10**7}, {"d_model": 10**6, "d_kv": 10**6}])
def test_a_config_is_not_taken_at_its_word(folder, sizes):
    """A model of these sizes would exhaust the memory before the comparison with its weights."""
    write(folder, "ce")
    file = folder / "t5-tiny.config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | sizes))
    message = r"t5-tiny\.safetensors: holds \d+ tensors of \d+ numbers, too few for a model of the given sizes"
    assert re.fullmatch(message, message_of(folder))


def test_weights_of_other_sizes_are_refused(folder):
    write(folder, "ce")
    file = folder / "t5-tiny.config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"d_ff": 65}))
    assert message_of(folder).startswith("t5-tiny.safetensors: weight encoder.block.0.layer.1.DenseReluDense.wi.weight")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("llama", {"rope_theta": None, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}),
        ("llama", {"num_key_value_heads": None, "head_dim": None, "rope_scaling": None, "max_position_embeddings": 9}),
        ("tiger", {"num_decoder_layers": None, "decoder_start_token_id": None, "model_type": "t5"}),
    ],
)
def test_other_spellings_of_the_same_model(name, values):
    file = SHIPPED / f"{'t5' if name == 'tiger' else name}-tiny.config.json"
    config = json.loads(file.read_text())
    read = BACKBONES[name].from_transformers_config
    assert read(config | values) == read(config)
