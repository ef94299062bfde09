"""A folder with a small dataset and a trained run, as written by the earlier stages."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from helpers.models import SlowModel, backbone_of, random_codes, run_params
from helpers.project import TOY, write_dataset
from safetensors.torch import save_file

from apao.backbones.base import Backbone
from apao.codes.itemcodes import ItemCodes
from apao.data.histories import Histories
from apao.files import sha256_of, write_json
from apao.stages.dataset import item_table
from apao.study.run_params import RunParams
from apao.study.runs import Run


@dataclass
class Toy:
    """The files below the working folder."""

    run: Run
    params: RunParams
    codes: ItemCodes
    histories: Histories
    backbone: Backbone

    def with_beam(self, beam: int) -> RunParams:
        """The run's parameters with another beam."""
        return self.params.model_copy(update={"decoding": self.params.decoding.model_copy(update={"beam": beam})})

    def targets(self, split: str) -> Iterator[tuple[int, list[int]]]:
        """For each user the target item, and the tokens of the items before it."""
        last = {"valid": -2, "test": -1}[split]
        for user in range(self.histories.users):
            row = self.histories.items[self.histories.offsets[user] : self.histories.offsets[user + 1]].tolist()
            yield row[last], self.codes.tokens[row[:last][-self.params.backbone.max_history :]].ravel().tolist()

    def rankings(self, split: str) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
        """For each user the target item, and all codes (as tuples of tokens) from best to worst, one by one."""
        slow, eos = SlowModel(self.backbone), self.params.decodes_eos
        codes = [tuple(code) for code in self.codes.distinct_tokens.tolist()]
        for target, history in self.targets(split):
            yield target, sorted(codes, key=lambda code, history=history: -slow.score(history, code, eos))


@pytest.fixture(params=["tiger", "llama"])
def toy(request, tmp_path, monkeypatch) -> Toy:
    """30 items on fewer codes, 9 users; an untrained model with random weights."""
    monkeypatch.chdir(tmp_path)
    codes = random_codes(30, 3, 3, seed=1)
    assert len(codes.distinct) < codes.items
    return make_toy(request.param, codes)


@pytest.fixture(params=["tiger", "llama"])
def crowded_toy(request, tmp_path, monkeypatch) -> Toy:
    """A dataset and run with more than 20 codes, and with 4 and at most 16 prefixes at the levels before the last."""
    monkeypatch.chdir(tmp_path)
    codes = random_codes(60, 3, 4)
    assert len(codes.distinct) > 20
    return make_toy(request.param, codes)


def make_toy(backbone_name: str, codes: ItemCodes) -> Toy:
    """Write the files below the working folder."""
    histories = write_dataset(codes, [3, 9, 4, 12, 5, 7, 3, 30, 6], seed=2)
    run = Run.parse(f"toy/{backbone_name}/ce/seed7")
    params = run_params(backbone_name, decoding={"batch_users": 4})
    backbone = backbone_of(backbone_name, len(codes.vocabulary), seed=5)

    run.folder.mkdir(parents=True)
    save_file(backbone.to_transformers(), run.folder / "model.safetensors")
    inputs = {str(path): sha256_of(path) for path in params.training_inputs()}
    item_table(TOY, histories, codes).write(run.catalogue)
    write_json(run.record, {"run": str(run), **params.for_training(), "inputs": inputs})
    return Toy(run, params, codes, histories, backbone)
