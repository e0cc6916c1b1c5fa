"""The formats that captioned pictures come in: Karpathy's, LAVIS's and Flickr30k's own."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmq.contracts import CaptionSample
from mmq.errors import InputError
from mmq.images import inside
from mmq_plugins.datasets.files import IDENTIFIER, check_entry, entries

COCO_NAME = re.compile(r"COCO_\w+?_0*(\d+)")


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture's id, its file with the folder that the annotation names, and its captions."""

    id: str
    file: str
    captions: tuple[str, ...]

    def sample(self, folder: Path) -> CaptionSample:
        """The picture in the folder that really holds it."""
        inside(folder, self.file)  # refuses names that lead elsewhere
        path = inside(folder, PurePosixPath(self.file).name)
        return CaptionSample(self.id, self.id, path, self.captions)


def read_karpathy(path: Path, splits: Collection[str]) -> Iterator[Captioned]:
    """dataset_coco.json, dataset_flickr30k.json: the pictures of these splits, in their order."""
    wanted = {"filename": str, "split": str, "sentences": list}
    for index, row in entries(path, "images", wanted):
        if row["split"] not in splits:
            continue
        place = f"images[{index}]"
        if not row["sentences"]:
            raise InputError(f"annotations: {path}: {place} has no sentences")
        for sentence in row["sentences"]:
            check_entry(sentence, {"raw": str}, path, f"a sentence of {place}")
        captions = tuple(sentence["raw"].strip() for sentence in row["sentences"])
        if "filepath" in row:
            check_entry(row, {"filepath": str}, path, place)
        file = "/".join(filter(None, (row.get("filepath"), row["filename"])))
        if isinstance(row.get("cocoid"), IDENTIFIER):
            yield Captioned(str(row["cocoid"]), file, captions)
        else:
            yield Captioned(_identifier(file), file, captions)


def read_lavis(path: Path) -> Iterator[Captioned]:
    """coco_karpathy_test.json, flickr30k_train.json: pictures in the order of their first rows.

    Test files have a row a picture with all its captions, training files a row a caption: of these
    the captions (90 MB of COCO's) are held until the last row was seen.
    """
    captions: dict[str, list[str]] = {}
    for index, row in entries(path, "", {"image": str, "caption": (str, list)}):
        file, texts = row["image"], _texts(path, index, row["caption"])
        if len(texts) > 1 and file in captions:
            raise InputError(f"annotations: {path}: [{index}] has captions of {file} again")
        captions.setdefault(file, []).extend(texts)
    for file, texts in captions.items():
        yield Captioned(_identifier(file), file, tuple(texts))


def _texts(path: Path, index: int, caption: Any) -> list[str]:
    texts = [caption] if isinstance(caption, str) else caption
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"annotations: {path}: [{index}] has a caption without text")
    return [text.strip() for text in texts]


def read_tokens(path: Path, names: Collection[str]) -> Iterator[Captioned]:
    """results_20130124.token: lines of NAME.jpg#K, tab, caption; the pictures of these names."""
    captions: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                file, caption = _token(path, number, line)
                if Path(file).stem in names:
                    captions.setdefault(file, []).append(caption)
    except UnicodeDecodeError as error:
        raise InputError(f"annotations: {path} is not UTF-8 text ({error})") from error
    if missing := set(names) - {Path(file).stem for file in captions}:
        raise InputError(f"annotations: {path} has no captions of the picture {min(missing)}")
    for file, texts in captions.items():
        yield Captioned(Path(file).stem, file, tuple(texts))


def _token(path: Path, number: int, line: str) -> tuple[str, str]:
    name, tab, caption = line.rstrip("\n").partition("\t")
    if not tab or "#" not in name or not caption.strip():
        raise InputError(f"annotations: {path}: line {number} is not NAME.jpg#K, tab, caption")
    return name.partition("#")[0], caption.strip()


def read_names(path: Path) -> set[str]:
    """A split as a list of pictures, one a line, with or without .jpg."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return {line.strip().removesuffix(".jpg") for line in lines} - {""}


def _identifier(file: str) -> str:
    """COCO's number where the name has one, as Karpathy gives it; else the name."""
    stem = Path(file).stem
    match = COCO_NAME.fullmatch(stem)
    return match[1] if match else stem
