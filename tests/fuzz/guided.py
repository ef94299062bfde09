"""Coverage-guided fuzzing of the targets with atheris: ``python tests/fuzz/guided.py NAME --seconds N``.

Inputs that reach new code in a parser are kept and mutated further. atheris is not a dependency of the
project (it has wheels for some versions of Python on Linux only): ``pip install atheris`` first. What is
found is written to ``crash-...`` in the working directory; reproduce it with ``--again`` and that file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris
import pandas  # noqa: F401 - imported before atheris instruments the rest
import torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["apao", "yaml"]):
    from hostile import TOKENS, meet
    from targets import TARGETS


def main() -> None:
    """Fuzz one target until the time is up or a failure is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--again", type=Path, help="a file that was found; met once")
    chosen = parser.parse_args()
    target = TARGETS[chosen.name]

    def one(content: bytes) -> None:
        # The first byte decides whether the rest is a file or the content to make a file of.
        meet(target, content[1:] if content[:1] < b"\x80" else target.pack(content[1:]))

    if chosen.again:
        one(chosen.again.read_bytes())
        return
    with TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / f"{number}-packed").write_bytes(b"\0" + target.pack(seed))
            (corpus / f"{number}").write_bytes(b"\xff" + seed)
        words = Path(folder, "words")
        spelled = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS if 0 < len(token) < 64)
        words.write_text("".join(f'"{word}"\n' for word in spelled))
        limits = [f"-max_total_time={chosen.seconds}", "-timeout=30", "-rss_limit_mb=4096", "-max_len=65536"]
        atheris.Setup([sys.argv[0], str(corpus), f"-dict={words}", *limits], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
