"""The columns of a table by field: given by --fields, or guessed from common names."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmq.errors import InputError, unknown
from mmq_plugins.datasets.records import shown

# what a column can be, with its usual names; the first name of each wins over the others
ALIASES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image", "images", "file_name", "file_names", "image_path", "img", "img_path", "photo",
        "picture", "pic", "filename", "image_file", "image_name", "path", "file", "foto", "bild",
    ),
    "question": ("question", "query", "q", "prompt", "frage"),
    "answers": (
        "answers", "answer", "label", "labels", "ground_truth", "gt", "target", "expected",
        "expected_answer", "correct_answer", "gt_answer", "solution", "antwort",
    ),
    "captions": (
        "captions", "caption", "references", "reference", "description", "text", "sentences",
        "sentences_raw", "raw",
    ),
    "options": ("options", "choices"),
    "id": ("id", "question_id", "questionid", "index", "sample_id", "qid", "uid"),
    "image_id": ("image_id", "imageid", "img_id", "imgid", "cocoid", "coco_id"),
    "type": ("answer_type", "question_type"),
    "hint": ("hint", "context"),
}  # fmt: skip
TURNS = {  # speakers of the turns of a conversation
    "question": ("human", "user"),
    "answers": ("gpt", "assistant"),
}
NUMBERED = {  # columns such as image_1, image_2: their names without the number
    "image": ("image", "images", "photo", "picture", "img", "bild", "foto"),
    "answers": ("answer", "answers", "label"),
    "captions": ("caption", "captions", "caption_text"),
    "options": ("option", "choice"),
}
LETTERS = "abcdefghij"
LETTERED = re.compile(r"(?:(option|choice|opt)_?)?([a-j])")
FILE_NAME = re.compile(r"_file_names?$")
NEEDED: Mapping[str, tuple[str, ...]] = {  # by task
    "captioning": ("image", "captions"),
    "retrieval": ("image", "captions"),
    "choice": ("image", "question", "options", "answers"),
    "": ("image", "question", "answers"),
}
USED = {  # by task, if they are there
    "captioning": ("id", "image_id"),
    "retrieval": ("id", "image_id"),
    "choice": ("id", "image_id", "type", "hint"),
    "": ("id", "image_id", "type", "hint"),
}

Fields = Mapping[str, tuple[str, ...]]  # the columns of each field


def needed(task: str) -> tuple[str, ...]:
    """The fields that a task cannot do without."""
    return NEEDED.get(task, NEEDED[""])


def used(task: str) -> tuple[str, ...]:
    """All fields that a task reads."""
    return needed(task) + USED.get(task, USED[""])


def parse_fields(text: str) -> dict[str, tuple[str, ...]]:
    """The columns of each field that --fields names.

    >>> parse_fields("image=photo, answers=label+other label")
    {'image': ('photo',), 'answers': ('label', 'other label')}
    """
    fields: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, columns = (piece.strip() for piece in part.partition("="))
        name = {"images": "image", "answer": "answers", "caption": "captions"}.get(name, name)
        if not equals or not columns:
            raise InputError(
                f"fields: {part!r} is not FIELD=COLUMN; write e.g. "
                f"--fields image=photo,question=q,answers=label"
            )
        if name not in ALIASES:
            raise unknown("field", name, ALIASES)
        if name in fields:
            raise InputError(f"fields: {name} is given twice; join columns with +: {name}=a+b")
        fields[name] = tuple(filter(None, (column.strip() for column in columns.split("+"))))
    return fields


def find_fields(
    columns: Sequence[str], given: Fields, task: str
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The columns of each field of a task, and the names of the fields that were guessed.

    InputError if a given column is missing or a guess is ambiguous. Needed fields may be absent.
    """
    for name, names in given.items():
        for column in names:
            if column not in columns:
                raise InputError(f"fields: {name}: {unknown('column', column, columns)}")
    taken = {column for names in given.values() for column in names}
    fields = dict(given)
    guessed = []
    for name in used(task):
        if name not in fields and (match := _guess(name, columns, taken, name in needed(task))):
            fields[name] = match
            taken |= {*match}
            guessed.append(name)
    return {name: fields[name] for name in used(task) if name in fields}, guessed


def _guess(name: str, columns: Sequence[str], taken: set[str], is_needed: bool) -> tuple[str, ...]:
    """The columns whose names are those of a field; () if there are none."""
    free = [column for column in columns if column not in taken]
    matches = (
        _named(ALIASES[name], free, _plain)
        or _named(ALIASES[name], free, _inner)
        or _named(TURNS.get(name, ()), [column for column in free if "." in column], _inner)
    )
    if name == "options" and not matches:
        return _lettered(columns)
    if numbered := _numbered(name, columns, taken):
        return numbered
    if name == "image" and not matches:  # an imagefolder's before_file_name, after_file_name
        return tuple(column for column in free if FILE_NAME.search(_plain(column)))
    exact = matches and _plain(matches[0]) in (ALIASES[name][0], ALIASES[name][0].rstrip("s"))
    if len(matches) > 1 and is_needed and not exact:
        choices = " or ".join(f"--fields {name}={column}" for column in matches)
        raise InputError(
            f"fields: several columns may be the {name}: {', '.join(matches)}; write {choices}"
        )
    return tuple(matches[:1])


def _named(
    aliases: Sequence[str], columns: Sequence[str], naming: Callable[[str], str]
) -> list[str]:
    """The columns with one of these names, in the order of the names."""
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(naming(column), []).append(column)
    return [column for alias in aliases for column in by_name.get(alias, ())]


def _inner(column: str) -> str:
    """The last name of a column that is inside an object: qa.question of JSON."""
    return _plain(column.rpartition(".")[2])


def _lettered(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns A, B, C, ..., Option A, Option B, ..., or options.A, ..., from A on."""
    by_form: dict[str, dict[str, str]] = {}
    for column in columns:
        outer, _, inner = column.rstrip(" .:").rpartition(".")
        if match := LETTERED.fullmatch(_plain(inner)):
            by_form.setdefault(f"{outer} {match[1]}", {}).setdefault(match[2], column)
    for own in by_form.values():
        count = next((k for k, letter in enumerate(LETTERS) if letter not in own), len(own))
        if count > 1:
            return tuple(own[letter] for letter in LETTERS[:count])
    return ()


def _numbered(name: str, columns: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    """Columns such as image_1, image_2, in the order of their numbers."""
    matches = []
    for column in columns:
        match = re.fullmatch(r"(.*?)[ _-]?(\d+)", _plain(column))
        if match and column not in taken and match[1] in NUMBERED.get(name, ()):
            matches.append((int(match[2]), column))
    return tuple(column for _, column in sorted(matches)) if len(matches) > 1 else ()


def _plain(column: str) -> str:
    """A column's name without case, article and punctuation.

    >>> _plain("The Question:"), _plain("Image-File")
    ('question', 'image_file')
    """
    return re.sub(r"[\W_]+", "_", column.lower()).strip("_").removeprefix("the_")


def misfit(
    path: Path,
    task: str,
    columns: Sequence[str],
    fields: Fields,
    row: Mapping[str, Any],
    pictures: Sequence[str],
    headless: bool = False,
) -> InputError:
    """The error for a table without a needed column: what it has, and a call that works.

    row: the first one. pictures: columns whose first cell is a picture. headless: the first line
    is a row, too.
    """
    absent = [name for name in needed(task) if name not in fields]
    first = ", ".join(f"{name}={shown(row[name])}" for name in columns if name in row)
    lines = [
        f"data: {path} has no column for: {', '.join(absent)} (task {task})",
        f"Columns: {', '.join(columns)}",
        f"First row: {first or 'none'}",
    ]
    if headless:
        lines.append("The first line seems to be a row; put a line with the columns' names above.")
    return InputError("\n".join([*lines, _advice(path, task, columns, fields, row, pictures)]))


def _advice(
    path: Path,
    task: str,
    columns: Sequence[str],
    fields: Fields,
    row: Mapping[str, Any],
    pictures: Sequence[str],
) -> str:
    """A call with the most likely columns for absent fields, or what the table is fit for."""
    proposal = dict(fields)
    taken = {x for names in fields.values() for x in names}
    # WebDataset's columns of its own are called __key__ and __url__
    rest = [c for c in columns if c not in taken and not c.startswith("__")]
    if "image" not in proposal and (places := [c for c in rest if c in pictures] or rest):
        proposal["image"] = (places[0],)
        rest.remove(places[0])
    questions = [c for c in rest if str(row.get(c, "")).rstrip().endswith("?")]
    for name in needed(task):
        if name in proposal or not rest:
            continue
        column = (questions or rest)[0] if name == "question" else rest[0]
        proposal[name] = (column,)
        rest.remove(column)
    if all(name in proposal for name in needed(task)):
        text = ",".join(f"{name}={'+'.join(proposal[name])}" for name in needed(task))
        return f"Name the columns: --data {path} --task {task} --fields {_quoted(text)}"
    if task not in ("captioning", "retrieval") and len(columns) > 1:
        captions = find_fields(columns, {}, "captioning")[0]
        if all(name in captions for name in needed("captioning")):
            return f"It has captions: --data {path} --task captioning"
    return f"Add the missing column{'s' if len(columns) < 2 else ''}, then name it with --fields."


def _quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[^\w=,.+/-]", text) else text
