"""Paths of the files of a project folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apao.files import PUBLISHED_RECORD

if TYPE_CHECKING:
    from apao.codes.tokenizers.base import Tokenizer
    from apao.study.runs import Run

PARAMS_FILE = Path("params.yaml")
DATA = Path("data")
RESULTS = Path("results")
FIGURES = Path("figures")
TABLES = RESULTS / "tables"
SEARCHES = RESULTS / "searches"


@dataclass(frozen=True)
class Collection:
    """A set of runs, and the folders of its results and figures."""

    results: Path
    figures: Path
    gaps: bool
    """Whether studies are drawn even if runs are missing."""
    records: tuple[str, ...] = ()
    """Files of each run that say how it was made, beside run.json."""

    def place(self, path: Path) -> Path:
        """Path in this collection of the file that ``OWN`` has at ``path`` (below results/ or figures/)."""
        for own, here in ((RESULTS, self.results), (FIGURES, self.figures)):
            if path.is_relative_to(own):
                return here / path.relative_to(own)
        return path

    def has(self, run: Run, files: Iterable[str]) -> bool:
        """Whether the collection has run.json and these files of a run."""
        return all(self.place(run.folder / name).exists() for name in ("run.json", *files))


OWN = Collection(RESULTS, FIGURES, gaps=False)
"""The runs trained in this project folder."""
PUBLISHED = Collection(RESULTS / "published", FIGURES / "published", gaps=True, records=(PUBLISHED_RECORD,))
"""The small files of finished runs, in the repository."""

NO_DATASET = frozenset(folder.name for folder in (TABLES, SEARCHES, PUBLISHED.results))
"""Names that no dataset can have: its results would be among those of these folders."""


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of the files of a dataset, below ``data/<name>`` except for the baselines' metrics."""

    name: str
    root: Path = Path()
    """The project folder."""

    @property
    def folder(self) -> Path:
        """``data/<name>``."""
        return self.root / DATA / self.name

    @property
    def raw(self) -> Path:
        """Folder of the downloaded files and their ``manifest.json``."""
        return self.folder / "raw"

    @property
    def raw_hash(self) -> Path:
        """Hash of the manifest in the format of ``sha256sum --check``; stands for the content of the folder."""
        return self.folder / "raw.sha256"

    @property
    def arriving(self) -> Path:
        """Name of the ``raw`` folder until the download is complete."""
        return self.folder / "raw.part"

    @property
    def manifest(self) -> Path:
        """JSON list of the downloaded files with their hashes."""
        return self.raw / "manifest.json"

    @property
    def interactions(self) -> Path:
        """Table user, item, timestamp, split."""
        return self.folder / "interactions.parquet"

    @property
    def items(self) -> Path:
        """Table item, raw_id, title, text."""
        return self.folder / "items.parquet"

    @property
    def users(self) -> Path:
        """Table user, raw_id."""
        return self.folder / "users.parquet"

    @property
    def stats(self) -> Path:
        """Statistics of the dataset (JSON), including those of the paper's Table 2."""
        return self.folder / "stats.json"

    @property
    def embeddings(self) -> Path:
        """Tensor ``embeddings`` (items, width)."""
        return self.folder / "embeddings.safetensors"

    @property
    def embedding_facts(self) -> Path:
        """Statistics of the texts or vectors (JSON): items without text, repeated texts, truncated tokens."""
        return self.folder / "embeddings.json"

    @property
    def codes(self) -> Path:
        """Table item, level_1 .. level_T."""
        return self.folder / "codes.parquet"

    @property
    def new_items(self) -> Path:
        """Items that the dataset does not have, with codes (``codes.items.ItemTable``)."""
        return self.folder / "new_items.parquet"

    def coded_from(self, tokenizer: Tokenizer) -> list[Path]:
        """Inputs of ``tokenizer`` besides the item table."""
        files = [self.embeddings] if tokenizer.reads_embeddings else []
        if tokenizer.reads_published:
            files.append(self.raw_hash)
        return [*files, *tokenizer.own_files()]

    @property
    def codebooks(self) -> Path:
        """Codebooks and encoder of the tokenizer (``stages.codes.read_codebooks``)."""
        return self.folder / "codebooks.safetensors"

    @property
    def code_quality(self) -> Path:
        """Collisions, and usage, entropy, reconstruction error and prefix counts per level (JSON)."""
        return self.folder / "code_quality.json"

    @property
    def baselines(self) -> Path:
        """Metrics of the untrained baselines."""
        return self.root / RESULTS / self.name / "baselines" / "metrics.json"


def decoding_time_file(dataset: str, backbone: str) -> Path:
    """Path of the decoding times of a backbone with the sizes in the dataset's recipe."""
    return RESULTS / dataset / backbone / "decoding_time.json"
