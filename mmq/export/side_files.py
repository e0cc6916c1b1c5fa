"""The files beside the weights: configuration, tokenizer, processor, chat template, licence."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmq.errors import InputError
from mmq.models.checkpoint_files import INDEX, OTHER_WEIGHTS, counted_files
from mmq.models.loading import locate
from mmq.models.transformers_loading import downloaded
from mmq.system.disk import naming

LICENCE = re.compile(r"(licen[sc]e|notice|copying)[\w-]*(\.(txt|md))?", re.IGNORECASE)
CONFIG = "config.json"


def source_folder(model: str) -> Path:
    """The folder of a model's files; InputError for a hub model that is not on this machine."""
    folder = downloaded(locate(model))
    if folder is None:
        raise InputError(
            f"model: {model} is not on this machine; download it (hf download {model}), or run "
            f"`mmq quantize --model {model}` first"
        )
    return folder


def side_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of all files of a checkpoint but its weights and config.json."""
    for name, path in counted_files(folder):
        if name in (INDEX, CONFIG) or path.suffix.lower() in (".safetensors", *OTHER_WEIGHTS):
            continue
        yield name, path
    for path in sorted(folder.iterdir()):
        if path.is_file() and LICENCE.fullmatch(path.name):
            yield path.name, path


def copy_side_files(folder: Path, to: Path) -> None:
    """Copy these files, with links resolved; an OSError names the file."""
    copy_files(side_files(folder), to)


def copy_files(files: Iterable[tuple[str, Path]], to: Path) -> None:
    """Copy files by name into a folder, with links resolved; an OSError names the file."""
    for name, path in files:
        place = to / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with naming(place, path.stat().st_size):
            shutil.copyfile(path, place)


def link_checkpoint(source: Path, folder: Path) -> None:
    """Links to all files of a checkpoint, for engines that read it as it is."""
    files = (path for path in sorted(source.rglob("*")) if path.is_file())
    link_files(((str(path.relative_to(source)), path) for path in files), folder)


def link_files(files: Iterable[tuple[str, Path]], folder: Path) -> None:
    """Links to files, by name in a folder."""
    for name, path in files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), place)
