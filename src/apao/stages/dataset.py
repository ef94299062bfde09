"""Loading a dataset for training and evaluation."""

from __future__ import annotations

from apao.codes.itemcodes import ItemCodes
from apao.codes.items import ItemTable
from apao.data.histories import Histories
from apao.errors import UserError
from apao.files import check_made_from, read_table
from apao.study.paths import DatasetPaths


def load_dataset(paths: DatasetPaths) -> tuple[Histories, ItemCodes]:
    """Load histories and item codes of a dataset.

    Raises:
        UserError: when a file is missing or damaged, or the codes belong to another catalogue.
    """
    histories, codes = Histories.load(paths.interactions), ItemCodes.read(paths.codes)
    check_made_from(paths.codes, paths.items, DatasetPaths(paths.name).items)
    items = int(histories.items.max()) + 1
    if codes.items != items:
        raise UserError(
            f"{paths.codes}: has the codes of {codes.items} items, but {paths.interactions} has {items} items; "
            f"build the codes of this catalogue: apao codes {paths.name}"
        )
    return histories, codes


def item_table(paths: DatasetPaths, histories: Histories, codes: ItemCodes) -> ItemTable:
    """The items of a dataset with titles, codes, and their numbers of occurrences in the training histories.

    Raises:
        UserError: when the item table is missing, damaged, or belongs to another catalogue.
    """
    items = read_table(paths.items)
    if len(items) != codes.items or not {"raw_id", "title"} <= set(items):
        raise UserError(
            f"{paths.items}: expected the raw_id and title of {codes.items} items, as many as {paths.codes} codes, "
            f"found {len(items)} rows; run its stage again: apao preprocess {paths.name}"
        )
    raw_ids, titles = (items[name].to_numpy(dtype=object) for name in ("raw_id", "title"))
    return ItemTable(raw_ids, titles, codes, histories.train_popularity(codes.items))
