"""`mmq datasets`: which data sets can be read, and where they lie."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from mmq.analysis.tables import aligned
from mmq.cli.options import no_leftovers
from mmq.contracts.dataset import Dataset
from mmq.data.source import dataset_readers
from mmq.errors import InputError
from mmq.system.regular_file import is_folder

log = logging.getLogger(__name__)
DEPTH = 2  # levels of subfolders that are looked into


@dataclass(frozen=True, slots=True)
class Found:
    """A folder that a data set can be read from."""

    folder: str
    training: bool
    lacking: tuple[str, ...]  # files and folders of the evaluated split that are not there


@dataclass(frozen=True, slots=True)
class Row:
    """A data set plugin and where it was found."""

    name: str
    tasks: tuple[str, ...]
    bundled: bool
    found: tuple[Found, ...]
    layout: str


@click.command("datasets")
@click.option("--root", default="", help="Folder to look in; $MMQ_DATA, ./data or . if empty.")
@click.option("--layouts", is_flag=True, help="Print the layout of every data set not found.")
@click.option("--as-json", is_flag=True, help="Print JSON.")
@click.pass_context
def datasets(context: click.Context, root: str, layouts: bool, as_json: bool) -> None:
    """List data sets, where they are found, and whether their training split is there."""
    no_leftovers(context)
    start = data_root(root)
    places = list(folders(start, DEPTH))
    rows = [look(name, reader, places) for name, reader in dataset_readers().items()]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    click.echo(table(rows))
    missing = [row for row in rows if not (row.found or row.bundled)]
    if layouts or not any(row.found for row in rows):
        for row in missing:
            click.echo(f"\n{row.name} is not in {str(start)!r}. Expected layout:\n\n{row.layout}")
    elif missing:
        click.echo("\n--layouts prints what is expected of those not found, and their pages.")


def data_root(given: str) -> Path:
    """The folder to look in; InputError where a named one is missing."""
    for source, text in (("root", given), ("MMQ_DATA", os.environ.get("MMQ_DATA", ""))):
        if text and not is_folder(Path(text)):
            raise InputError(f"{source}: there is no folder {text!r}")
        if text:
            return Path(text)
    return Path("data") if Path("data").is_dir() else Path()


def folders(root: Path, depth: int) -> Iterator[Path]:
    """The folder and its readable subfolders; hidden ones are passed over."""
    if not os.access(root, os.R_OK | os.X_OK):
        return
    yield root
    if depth:
        names = sorted(n for n in os.listdir(root) if n[:1] != "." and is_folder(root / n))
        for name in names:
            yield from folders(root / name, depth - 1)


def look(name: str, reader: Dataset, places: list[Path]) -> Row:
    """Where a data set is; not the folders inside one where it is."""
    found: dict[Path, Found] = {}
    for place in [] if reader.bundled else places:
        if not found.keys() & {*place.parents} and reader.recognizes(place):
            # a name that is not UTF-8 can be printed, too
            shown = os.fsencode(place).decode(errors="backslashreplace")
            found[place] = Found(shown, trains(reader, place), tuple(reader.lacking(place)))
    return Row(name, reader.tasks, reader.bundled, tuple(found.values()), reader.layout)


def trains(reader: Dataset, place: Path) -> bool:
    """Whether there is a training split that can be drawn from."""
    try:
        return reader.calibration(reader.tasks[0], place, 0, 0) is not None
    except InputError as error:
        log.warning("%s", error)
        return False


def table(rows: list[Row]) -> str:
    """One line a folder."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        name, tasks = row.name, ", ".join(row.tasks)
        if not row.found:
            lines.append((name, tasks, "(bundled)" if row.bundled else "not found", "", ""))
        lines += [
            (name, tasks, f.folder, "yes" if f.training else "no", ", ".join(f.lacking))
            for f in row.found
        ]
    return aligned(("data set", "tasks", "folder", "training split", "missing"), lines)
