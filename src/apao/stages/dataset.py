"""Loading a dataset for training and evaluation."""

from __future__ import annotations

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import Histories
from apao.errors import UserError
from apao.study.paths import DatasetPaths


def load_dataset(paths: DatasetPaths) -> tuple[Histories, ItemCodes]:
    """Load histories and item codes of a dataset.

    Raises:
        UserError: when a file is missing or damaged, or the codes belong to another catalogue.
    """
    histories, codes = Histories.load(paths.interactions), ItemCodes.read(paths.codes)
    items = int(histories.items.max()) + 1
    if codes.items != items:
        raise UserError(
            f"{paths.codes}: has the codes of {codes.items} items, but {paths.interactions} has {items} items; "
            f"build the codes of this catalogue: apao codes {paths.name}"
        )
    return histories, codes
