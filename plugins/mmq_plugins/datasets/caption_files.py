"""The file formats of captions: Karpathy's, LAVIS's and Flickr30k's own."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmq.contracts import CaptionSample, FileImage
from mmq.data.image_checks import inside
from mmq.errors import InputError
from mmq.system.regular_file import not_utf8, open_regular
from mmq_plugins.datasets.annotations import (
    IDENTIFIER,
    Unique,
    check_entry,
    check_text,
    entries,
    shortened,
    twice,
)

log = logging.getLogger(__name__)
LINE_LIMIT = 2**20  # bytes
COCO_NAME = re.compile(r"COCO_\w+?_0*(\d+)")


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture's id, its file with the folder that the annotation names, and its captions."""

    id: str
    file: str
    captions: tuple[str, ...]

    def sample(self, folder: Path) -> CaptionSample:
        """The sample, with the picture in this folder."""
        inside(folder, self.file)  # refuses names that lead elsewhere
        path = inside(folder, PurePosixPath(self.file).name)
        return CaptionSample(self.id, self.id, (FileImage(path),), self.captions)


def check_repeats(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Warn about captions that a picture has more than once.

    Annotators may agree, but rows may also have been copied.
    """
    repeated = {key: texts for key, texts in captions.items() if len({*texts}) < len(texts)}
    if repeated:
        key = min(repeated)
        count = sum(len(texts) - len({*texts}) for texts in repeated.values())
        log.warning(
            "captions: %d captions of %d pictures in %s repeat another one of their picture word "
            "for word, first of %s; each counts as a separate reference",
            count, len(repeated), path, key,
        )  # fmt: skip


def _refuse_doubled(path: Path, key: str, texts: Sequence[str]) -> None:
    """InputError if every caption of a picture is repeated: its rows were copied."""
    if len(texts) > 1 and min(Counter(texts).values()) > 1:
        raise InputError(
            f"annotations: {path}: every caption of {key} appears more than once; rows seem to "
            f"have been copied. Keep one row per caption"
        )


def read_karpathy(path: Path, splits: Collection[str]) -> Iterator[Captioned]:
    """dataset_coco.json, dataset_flickr30k.json: the pictures of these splits, in their order."""
    wanted = {"filename": str, "split": str, "sentences": list}
    unique = [Unique(("filename",), "split"), Unique(("cocoid",), "filename")]
    repeated: dict[str, Sequence[str]] = {}
    for index, row in entries(path, "images", wanted, unique):
        if row["split"] not in splits:
            continue
        captioned = _karpathy_row(path, f"images[{index}]", row)
        if len({*captioned.captions}) < len(captioned.captions):
            repeated[captioned.id] = captioned.captions
        yield captioned
    check_repeats(path, repeated)


def _karpathy_row(path: Path, place: str, row: Any) -> Captioned:
    if not row["sentences"]:
        raise InputError(f"annotations: {path}: {place} has no sentences")
    numbers: dict[str, int] = {}
    for k, sentence in enumerate(row["sentences"]):
        check_entry(sentence, {"raw": str}, path, f"a sentence of {place}")
        number = sentence.get("sentid")
        if number is not None and (first := numbers.setdefault(str(number), k)) != k:
            places = (f"sentences[{position}]" for position in (first, k))
            raise twice(path, f"the sentid {number} of {place}", *places)
    texts = tuple(
        check_text(sentence["raw"], path, f"sentences[{k}] of {place}")
        for k, sentence in enumerate(row["sentences"])
    )
    if "filepath" in row:
        check_entry(row, {"filepath": str}, path, place)
    file = "/".join(filter(None, (row.get("filepath"), row["filename"])))
    if not numbers:
        _refuse_doubled(path, file, texts)
    has_id = type(row.get("cocoid")) in IDENTIFIER
    return Captioned(str(row["cocoid"]) if has_id else _identifier(file), file, texts)


def read_lavis(path: Path) -> Iterator[Captioned]:
    """coco_karpathy_test.json, flickr30k_train.json: pictures in the order of their first rows.

    Test files have one row per picture with all its captions, training files one per caption, so
    that all captions (90 MB for COCO) are in memory until the last row is read.
    """
    captions: dict[str, list[str]] = {}
    complete: dict[str, int] = {}  # pictures with a row that has all their captions
    for index, row in entries(path, "", {"image": str, "caption": (str, list)}):
        file, given = row["image"], row["caption"]
        if file in complete or (type(given) is list and file in captions):
            first = f"; [{complete[file]}] has them already" if file in complete else ""
            raise InputError(
                f"annotations: {path}: [{index}] has captions of {file} again{first}. Remove one "
                f"of the rows: both would count"
            )
        if type(given) is list:
            complete[file] = index
        captions.setdefault(file, []).extend(_texts(path, index, given))
    for file, texts in captions.items():
        _refuse_doubled(path, file, texts)
    check_repeats(path, captions)
    for file, texts in captions.items():
        yield Captioned(_identifier(file), file, tuple(texts))


def _texts(path: Path, index: int, caption: Any) -> list[str]:
    texts = [caption] if isinstance(caption, str) else caption
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"annotations: {path}: [{index}] has a caption without text: {shortened(caption)}"
        )
    return [check_text(text, path, f"a caption of [{index}]") for text in texts]


def read_tokens(path: Path, names: Collection[str]) -> Iterator[Captioned]:
    """results_20130124.token: lines of NAME.jpg#K, tab, caption; the pictures of these names."""
    captions: dict[str, dict[str, tuple[int, str]]] = {}  # by file and K
    for number, line in _lines(path):
        file, key, caption = _token(path, number, line)
        texts = captions.setdefault(file, {}) if Path(file).stem in names else {}
        if key in texts:
            places = (f"line {line_number}" for line_number in (texts[key][0], number))
            raise twice(path, f"{file}#{key}", *places)
        texts[key] = number, caption
    if missing := set(names) - {Path(file).stem for file in captions}:
        raise InputError(f"annotations: {path} has no captions for the picture {min(missing)}")
    for file, texts in captions.items():
        yield Captioned(Path(file).stem, file, tuple(text for _, text in texts.values()))


def _token(path: Path, number: int, line: str) -> tuple[str, str, str]:
    name, tab, caption = line.rstrip("\n").partition("\t")
    if not tab or "#" not in name or not caption.strip():
        raise InputError(f"annotations: {path}: line {number} is not NAME.jpg#K, tab, caption")
    file, _, key = name.partition("#")
    return file, key.strip(), check_text(caption, path, f"the caption in line {number}")


def read_names(path: Path) -> set[str]:
    """A split as a list of pictures, one per line, with or without .jpg."""
    names: dict[str, int] = {}
    for number, line in _lines(path):
        name = line.strip().removesuffix(".jpg")
        if name in names:
            raise twice(path, f"the picture {name}", f"line {names[name]}", f"line {number}")
        names[name] = number
    return set(names)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, numbered from 1."""
    number, start = 0, b""
    with open_regular(path, "annotations") as file:
        try:
            while line := file.readline(LINE_LIMIT):
                number, start = number + 1, start or line[:2]
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if len(line) == LINE_LIMIT and line[-1:] != b"\n":
                    raise InputError(
                        f"annotations: {path}: line {number} has more than {LINE_LIMIT} bytes"
                    )
                if text.strip():
                    yield number, text
        except UnicodeDecodeError as error:
            raise not_utf8(path, "annotations", number, start) from error
        except OSError as error:
            raise InputError(f"annotations: {path} cannot be read ({error.strerror})") from error


def _identifier(file: str) -> str:
    """COCO's number if the name has one, as in Karpathy's files; else the name."""
    stem = Path(file).stem
    match = COCO_NAME.fullmatch(stem)
    return match[1] if match else stem
