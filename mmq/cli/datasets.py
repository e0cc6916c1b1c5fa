"""`mmq datasets`: the data sets that can be read, and their folders."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from mmq.analysis.tables import aligned
from mmq.cli.command import command
from mmq.cli.options import no_leftovers
from mmq.contracts.dataset import Dataset
from mmq.data.source import dataset_readers
from mmq.data.subsets import has_pictures
from mmq.errors import InputError
from mmq.system.regular_file import is_folder

log = logging.getLogger(__name__)
DEPTH = 2  # levels of subfolders to search


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that a data set can be read from."""

    folder: str
    training: bool
    lacking: tuple[str, ...]  # missing files and folders of the evaluation split


@dataclass(frozen=True, slots=True)
class Row:
    """A data set plugin and the folders that it can read."""

    name: str
    tasks: tuple[str, ...]
    bundled: bool
    found: tuple[Place, ...]
    layout: str


@command("datasets", "mmq datasets --root /data")
@click.option("--root", default="", help="Folder to search; if empty: $MMQ_DATA, ./data or .")
@click.option(
    "--layouts", is_flag=True, help="Print the layout of each data set that is not found."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def datasets(context: click.Context, root: str, layouts: bool, as_json: bool) -> None:
    """List data sets, the folders that hold them, and whether they have a training split."""
    no_leftovers(context)
    start = data_root(root)
    places = list(folders(start, DEPTH))
    rows = look_at_all(dataset_readers(), places)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    click.echo(table(rows))
    missing = [row for row in rows if not (row.found or row.bundled)]
    if layouts:
        for row in missing:
            click.echo(f"\n{row.name} is not in {str(start)!r}. Expected layout:\n\n{row.layout}")
    elif missing:
        click.echo("\nPass --layouts to print the layouts and download pages of those not found.")


def data_root(root: str) -> Path:
    """The folder to search; InputError if a named one is missing."""
    for source, text in (("root", root), ("MMQ_DATA", os.environ.get("MMQ_DATA", ""))):
        if text and not is_folder(Path(text)):
            raise InputError(f"{source}: there is no folder {text!r}")
        if text:
            return Path(text)
    return Path("data") if Path("data").is_dir() else Path()


def folders(root: Path, depth: int) -> Iterator[Path]:
    """The folder and its readable subfolders, without hidden ones."""
    if not os.access(root, os.R_OK | os.X_OK):
        return
    yield root
    if depth:
        names = sorted(n for n in os.listdir(root) if n[:1] != "." and is_folder(root / n))
        for name in names:
            yield from folders(root / name, depth - 1)


def look_at_all(readers: Mapping[str, Dataset], places: list[Path]) -> list[Row]:
    """The folders of each data set; a fallback gets those that no other one recognizes."""
    rest = list(places)
    rows = {}
    for name, reader in sorted(readers.items(), key=lambda item: item[1].is_fallback):
        rows[name] = look(name, reader, rest if reader.is_fallback else places)
        folders = [Path(place.folder) for place in rows[name].found]
        rest = [p for p in rest if not any(f == p or f in p.parents for f in folders)]
    return [rows[name] for name in readers]


def look(name: str, reader: Dataset, places: list[Path]) -> Row:
    """The folders of a data set; subfolders of a recognized one are skipped."""
    recognized: dict[Path, Place] = {}
    for folder in [] if reader.bundled else places:
        if not recognized.keys() & {*folder.parents} and reader.recognizes(folder):
            # also prints names that are not UTF-8
            shown = os.fsencode(folder).decode(errors="backslashreplace")
            lacking = tuple(reader.lacking(folder))
            recognized[folder] = Place(shown, has_training_split(reader, folder), lacking)
    return Row(name, reader.tasks, reader.bundled, tuple(recognized.values()), reader.layout)


def has_training_split(reader: Dataset, folder: Path) -> bool:
    """Whether there is a training split with at least one of its pictures."""
    try:
        split = reader.splits(folder).calibration
        return split is not None and has_pictures(reader, folder, split)
    except InputError as error:
        log.warning("%s", error)
        return False


def table(rows: list[Row]) -> str:
    """One line per folder."""
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
