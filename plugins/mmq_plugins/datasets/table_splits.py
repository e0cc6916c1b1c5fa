"""The splits of a table that has all of them: by a column `split`, or by the pictures' folders."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mmq_plugins.datasets.records import Record, TableFile, as_text
from mmq_plugins.datasets.split_files import EVALUATION, WORDS, pick

COLUMN = "split"
TRAIN = "train"
_counted: dict[tuple[Path, int, int, str], Mapping[str, int]] = {}


class PartOfTable:
    """The rows of a table that belong to a split."""

    def __init__(self, table: TableFile, column: str, split: str) -> None:
        self.table, self.column, self.split = table, column, split
        self.path, self.columns = table.path, table.columns
        self.decimal_commas, self.is_text = table.decimal_commas, table.is_text

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """The rows of the split."""
        read = dict.fromkeys([*columns, self.column])
        for record in self.table.records(tuple(read), pictures):
            if split_of(record.values[self.column]) == self.split:
                yield record


def split_of(value: object) -> str:
    """The split that a cell names, alone or as the first folder of a path; "" if it does not.

    >>> split_of("val"), split_of("train/dogs/1.jpg"), split_of("dogs/train.jpg")
    ('validation', 'train', '')
    """
    text = value if isinstance(value, str) else as_text(value)
    folder, slash, _ = text.replace("\\", "/").removeprefix("./").partition("/")
    return WORDS.get((folder if slash else text).strip().lower(), "")


def split_column(table: TableFile, image: Collection[str]) -> str:
    """The column that names the rows' splits; "" if there is none, or no split to calibrate on.

    image: the columns with the pictures' paths.
    """
    named = [name for name in table.columns if name.strip().lower() == COLUMN]
    for column in (*named, *image):
        splits = rows_by_split(table, column)
        if TRAIN in splits and pick(splits, EVALUATION) is not None:
            return column
    return ""


def rows_by_split(table: TableFile, column: str) -> Mapping[str, int]:
    """The rows of each split; {} if a row has none. Counted once until the file changes."""
    stat = table.path.stat()
    key = (table.path, stat.st_mtime_ns, stat.st_size, column)
    if key not in _counted:
        _counted[key] = _count(table, column)
    return _counted[key]


def _count(table: TableFile, column: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for record in table.records((column,)):
        split = split_of(record.values[column])
        if not split:
            return {}
        rows[split] = rows.get(split, 0) + 1
    return rows
