"""Print params.yaml with a small scale that takes minutes: fewer examples, timed catalogues and ablations.

For continuous integration: the code, data, stages and studies of `make demo`, with too little training for results.
"""

import sys
from pathlib import Path

import yaml


def shorten(text: str) -> str:
    params = yaml.safe_load(text)
    recipe, studies = params["recipes"]["small"], params["studies"]["small"]
    recipe["training"].update(epochs=1, examples_per_epoch=2000)
    recipe["measure"]["exact"] = 50
    recipe["measure"]["decoding_time"]["catalogue_sizes"] = [500, 1000]
    for panel in ("modules", "prefixes"):
        studies["figure2"][panel] = dict(list(studies["figure2"][panel].items())[:2])
    return yaml.safe_dump(params, sort_keys=False)


if __name__ == "__main__":
    print(shorten(Path(sys.argv[1]).read_text(encoding="utf-8")), end="")
