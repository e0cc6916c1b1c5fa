"""The files of each split of a data set, as the Hugging Face hub and people name them."""

import logging
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mmq.errors import InputError

log = logging.getLogger(__name__)
# levels of subfolders of a copy of the hub: CONFIG/FILE, and folders called data or like splits
DEPTH = 1
CACHE, CACHE_DEPTH = "snapshots", 3  # the hub's cache has snapshots/REVISION/CONFIG/FILE
MOST_FOLDERS = 200  # maximum subfolders of one folder to search
SHARD = re.compile(r"[-_.]?(\d{4,5})-of-(\d{4,5})(?:-[0-9a-f]+)?$")
WORDS = {  # names of splits
    "train": "train", "training": "train", "test": "test", "testdev": "testdev",
    "validation": "validation", "valid": "validation", "val": "validation",
    "eval": "validation", "dev": "dev",
}  # fmt: skip
DATA = "data"
PLAIN_FOLDERS = {DATA, "default", CACHE}  # folder names that are not configurations
EVALUATION = ("test", "validation", "testdev", "dev")
_reported: set[Path] = set()


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A file with its configuration ("" for none) and split, both from its name and folder."""

    path: Path
    config: str
    split: str


def parquet_files(root: Path) -> list[Path]:
    """The parquet files of a copy of the hub, or of its cache."""
    in_cache = (root / CACHE).is_dir()
    depth = CACHE_DEPTH if in_cache else DEPTH
    if (root / DATA).is_dir():
        depth += 1  # data/CONFIG/FILE
    return list_files(root, (".parquet",), depth, WORDS)


def list_files(
    root: Path, endings: Sequence[str], depth: int, free: Collection[str] = ()
) -> list[Path]:
    """The folder's files with one of these endings, sorted; the file itself if it is one.

    depth: levels of subfolders. free: names of folders that do not count as a level.
    """
    if root.is_file():
        return [root] if root.name.lower().endswith(tuple(endings)) else []
    return list(_walk(root, tuple(endings), depth, free))


def _walk(
    folder: Path, endings: tuple[str, ...], depth: int, free: Collection[str]
) -> Iterator[Path]:
    try:
        files, folders = _listed(folder, folder.stat().st_mtime_ns, endings)
    except OSError:
        return
    yield from (folder / name for name in files)
    for name in folders[:MOST_FOLDERS]:
        left = depth - (_plain_folder(name) not in free)
        if left >= 0:  # a split folder has no other one in it, but may be a link to its parent
            yield from _walk(folder / name, endings, left, free if left < depth else ())


def _plain_folder(name: str) -> str:
    """A folder's name; of one of the hub's conversion, partial-train, without its prefix."""
    return name.lower().removeprefix("partial-")


@lru_cache(maxsize=1024)
def _listed(
    folder: Path, modified: int, endings: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of files with these endings, and of subfolders."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "~$")):  # ~$: the lock of a sheet that is open
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(endings):
                files.append(entry.name)
    return tuple(sorted(files)), tuple(sorted(folders))


def split_file(root: Path, path: Path) -> SplitFile:
    """Configuration and split of a file.

    >>> split_file(Path("a"), Path("a/en/dev-00000-of-00001.parquet"))
    SplitFile(path=PosixPath('a/en/dev-00000-of-00001.parquet'), config='en', split='dev')
    """
    folders = path.parent.relative_to(root).parts if path != root else ()
    name = SHARD.sub("", path.stem)
    split = _split_word(name)
    config = []
    for folder in folders:
        plain = _plain_folder(folder)
        if plain in WORDS and not split:
            split = WORDS[plain]
        elif plain not in PLAIN_FOLDERS and not re.fullmatch(r"[0-9a-f]{40}", plain):
            config.append(folder)
    return SplitFile(path, "/".join(config), split or name)


def _split_word(name: str) -> str:
    """The split that is a word of a file's name."""
    words = [WORDS[word] for word in re.split(r"[-_. ]+", name.lower()) if word in WORDS]
    return words[-1] if words else ""


def by_split(files: Sequence[SplitFile], root: Path, joined: bool) -> dict[str, list[Path]]:
    """The files of each split. InputError for several configurations, unless they are `joined`.

    Files without a configuration are preferred.
    """
    configs = sorted({file.config for file in files})
    if len(configs) > 1 and not joined:
        if "" not in configs:
            raise InputError(
                f"data: {str(root)!r} has several configurations: {', '.join(configs)}; pass the "
                f"folder of one, e.g. --data {shlex.quote(str(root / configs[0]))}"
            )
        files = [file for file in files if not file.config]
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(file.split, []).append(file.path)
    return splits


def pick(splits: Mapping[str, object], order: Sequence[str] = EVALUATION) -> str | None:
    """The first of these splits that is there."""
    return next((name for name in order if name in splits), None)


def warn_of_missing_shards(paths: Sequence[Path]) -> None:
    """Warn about files of a split that are not there: NAME-00001-of-00004 names how many."""
    matches = [match for path in paths if (match := SHARD.search(path.stem))]
    if not matches or paths[0] in _reported:
        return
    total = sum({(path.parent, SHARD.sub("", path.stem)): int(m[2])
                 for path, m in zip(paths, matches, strict=False)}.values())  # fmt: skip
    if len(matches) < total:
        _reported.add(paths[0])
        log.warning(
            "data: only %d of the %d files of this split are in %s; only their rows are used",
            len(matches), total, paths[0].parent,
        )  # fmt: skip
