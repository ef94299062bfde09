"""A dataset as training and evaluation read it."""

from __future__ import annotations

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import Histories
from apao.errors import UserError
from apao.study.paths import DatasetPaths


def load_dataset(paths: DatasetPaths) -> tuple[Histories, ItemCodes]:
    """What training and evaluation read of a dataset.

    Raises:
        UserError: when a file is missing or damaged, or the codes are of another catalogue.
    """
    histories, codes = Histories.load(paths.interactions), ItemCodes.read(paths.codes)
    items = int(histories.items.max()) + 1
    if codes.items != items:
        raise UserError(
            f"{paths.codes}: holds the codes of {codes.items} items, but {paths.interactions} has {items}; "
            f"make the codes of this catalogue: apao codes {paths.name}"
        )
    return histories, codes
