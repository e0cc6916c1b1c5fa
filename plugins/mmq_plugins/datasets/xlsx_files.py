"""The first sheet of an Excel workbook."""

import logging
import re
from collections.abc import Collection, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq_plugins.datasets.csv_files import column_names
from mmq_plugins.datasets.records import Record, as_text

log = logging.getLogger(__name__)
LITERAL = re.compile(r'"[^"]*"|\\.')  # in a number format; 0"%" does not scale the number
_reported: set[Path] = set()


class XlsxFile:
    """Its rows as text, with formulas replaced by the values that Excel saved."""

    def __init__(self, path: Path) -> None:
        self.path, self.decimal_commas, self.is_text = path, False, False
        self.header, header = next((row for row in self._rows() if any(row[1])), (0, []))
        if not header:
            raise InputError(f"data: {path}: its first sheet is empty; put the names of the "
                             f"columns into the first row")  # fmt: skip
        self.columns = column_names(header, path)

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every row that is not blank."""
        indices = {name: self.columns.index(name) for name in columns}
        for number, row in self._rows():
            if number > self.header and any(row):
                padded = row + [""] * (len(self.columns) - len(row))
                yield Record(f"row {number}", {name: padded[k] for name, k in indices.items()})

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        book = self._book()
        sheets = book.sheetnames
        if len(sheets) > 1 and self.path not in _reported:
            _reported.add(self.path)
            log.warning(
                "data: %s has %d sheets; only the first, %r, is read",
                self.path, len(sheets), sheets[0],
            )  # fmt: skip
        for number, row in enumerate(book[sheets[0]].iter_rows(), 1):
            yield number, [_cell(cell.value, cell.number_format or "") for cell in row]

    def _book(self) -> Any:
        try:
            from openpyxl import load_workbook
        except ImportError as error:
            raise InputError(
                f"data: reading {self.path.name} needs openpyxl; install it (pip install "
                f"openpyxl), or save the sheet as CSV"
            ) from error
        try:
            return load_workbook(self.path, read_only=True, data_only=True)
        except Exception as error:  # a damaged workbook can raise anything
            raise InputError(
                f"data: {self.path} is not a readable Excel workbook ({error}); save the sheet as "
                f"CSV"
            ) from error


def _cell(value: Any, number_format: str) -> str:
    """A cell as the sheet shows it: 0.12 in a format of percentages is 12%."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and "%" in LITERAL.sub("", number_format):
        return f"{as_text(round(100 * value, 10))}%"
    if isinstance(value, datetime) and value.time() == time():  # a cell with a date alone
        value = value.date()
    return value.isoformat() if isinstance(value, date) else as_text(value)
