"""Rows of a table become samples of a task; rows that do not fit are reported together."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from mmq.contracts import (
    CaptionSample,
    ChoiceSample,
    FileImage,
    ImageRef,
    QuestionSample,
    Sample,
    ShortAnswerSample,
)
from mmq.errors import InputError
from mmq_plugins.datasets.cells import (
    ANSWER_MARKS,
    MARK,
    is_missing,
    listed,
    right_letter,
    several,
    texts,
    without_letters,
    without_marks,
)
from mmq_plugins.datasets.numbers import Spelling, spelling
from mmq_plugins.datasets.problems import FIRST, PROBLEMS, Problem
from mmq_plugins.datasets.records import Record, TableFile, as_text, shown
from mmq_plugins.datasets.table_fields import Fields
from mmq_plugins.datasets.table_pictures import PictureFolder

log = logging.getLogger(__name__)
Images = tuple[ImageRef, ...]
CAPTIONS = ("captioning", "retrieval")
SEVERAL = ("vqa", "short-answer", *CAPTIONS)  # tasks with several right answers
COMPARED = 20  # maximum pictures to compare with those of the same id
OPEN = "open"  # MMMU's type of questions without options
_reported: set[tuple[str, str]] = set()


class TableSamples:
    """The samples of one table for a task.

    metric and rule: how the data set's authors score, see ShortAnswerSample and ChoiceSample.
    own: a table of one's own, whose cells may separate several answers by | or ;, and name the
    right option by its text.
    """

    def __init__(
        self, table: TableFile, fields: Fields, task: str, metric: str = "", rule: str = "",
        own: bool = False,
    ) -> None:  # fmt: skip
        self.table, self.fields, self.task = table, fields, task
        self.metric, self.rule = metric, rule
        self.columns = tuple(dict.fromkeys(c for names in fields.values() for c in names))
        self.pictures = PictureFolder(table.path.parent)
        self.problems: dict[str, Problem] = {}
        self.spelled: Spelling = str
        self.own, self.separated = own, own and task in SEVERAL
        self.split = Problem("", "")  # cells with several answers
        self._ids: dict[str, str] = {}  # places
        self._by_image_id: dict[str, Images] = {}
        self._compared = 0  # pictures that have an id of an earlier row
        self._by_row: dict[str, Images] | None = None
        self._owners: dict[Images, str] = {}  # the row that has a picture first

    def __iter__(self) -> Iterator[Sample]:
        """One sample per row, or per picture for captions."""
        self.spelled = spelling(
            self.table, self.fields.get("answers", ()), partial(_report, self.table.path)
        )
        total = 0
        captions: dict[str, CaptionSample] = {}
        for number, record in enumerate(self.table.records(self.columns, self.fields["image"]), 1):
            total = number
            key = self._id(record, number)
            images = self._images(record, key)
            if images is None:
                continue
            image_id = self._image_id(record, key, images)
            images = self._shared(image_id, images)
            if self.task in CAPTIONS:
                self._add_caption(captions, record, image_id, images)
            elif sample := self._question(record, key, image_id, images):
                yield sample
        self._refuse(total)
        self.pictures.report()
        if self.split.count:
            _report(
                self.table.path,
                f"{self.split.count} cells are read as several answers, e.g. "
                f'{self.split.places[0]}; write a list, such as ["a; b"], where it is one',
            )
        yield from captions.values()

    # the sample's parts

    def _id(self, record: Record, number: int) -> str:
        key = as_text(self._value(record, "id")) or str(number)
        if self.task not in CAPTIONS and self._ids.setdefault(key, record.place) != record.place:
            raise InputError(
                f"data: {self.table.path}: {self._ids[key]} and {record.place} have the same id "
                f"{key!r} ({self.fields['id'][0]}); give every row its own, or rename the column "
                f"to number the rows"
            )
        return key

    def _images(self, record: Record, key: str) -> Images | None:
        """The pictures of a row; None, and a noted problem, if there is none."""
        cells = [record.values[column] for column in self.fields["image"]]
        flat: list[Any] = []
        for cell in cells:
            flat += texts(cell, self._place(record)) if _spells_list(cell) else _as_list(cell)
        refs: list[ImageRef] = []
        for value in flat:
            if isinstance(value, ImageRef):
                refs.append(value)
            elif not is_missing(value):
                picture = self._named(str(value), key)
                if picture is None:
                    self._note("picture", f"{record.place} ({shown(value)})")
                    return None
                refs += picture
        if not refs:
            self._note("no picture", record.place)
            return None
        return tuple(refs)

    def _named(self, value: str, key: str) -> Sequence[ImageRef] | None:
        """The picture with this name, or that of the row with this id."""
        try:
            picture = self.pictures.picture(value)
        except InputError as error:
            raise InputError(f"{error}; it is in the row with the id {key}") from error
        if picture is not None:
            return (picture,)
        if self._by_row is None:  # VLMEvalKit: later questions name the row with their picture
            columns = [*self.fields["image"], *self.fields.get("id", ())]
            self._by_row = {
                as_text(self._value(record, "id")): (cell,)
                for record in (
                    self.table.records(columns, columns[:1]) if "id" in self.fields else ()
                )
                if isinstance(cell := record.values[self.fields["image"][0]], ImageRef)
            }
        return self._by_row.get(value)

    def _image_id(self, record: Record, key: str, images: Images) -> str:
        """The given id, the picture's path from the table's folder, or the row's id."""
        if image_id := as_text(self._value(record, "image_id")):
            return image_id
        folder = f"{self.table.path.parent}{os.sep}"
        names = [
            str(image.path).removeprefix(folder)
            for image in images
            if isinstance(image, FileImage)
        ]
        if len(names) == len(images):
            return " + ".join(names)
        return self._owners.setdefault(images, key)

    def _shared(self, image_id: str, images: Images) -> Images:
        """The cells of the first row with this id: hub copies repeat a picture per question."""
        if any(isinstance(image, FileImage) for image in images):
            return images
        first = self._by_image_id.setdefault(image_id, images)
        if self.own and first != images and self._compared < COMPARED:
            self._compared += 1
            if [image.digest() for image in first] != [image.digest() for image in images]:
                raise InputError(
                    f"data: {first[0].name} and {images[0].name} are different pictures with the "
                    f"same id {image_id!r}; rename the column, or name the one that identifies "
                    f"pictures with --fields image_id=COLUMN"
                )
        return first

    def _question(
        self, record: Record, key: str, image_id: str, images: Images
    ) -> QuestionSample | None:
        """The sample; None, and a noted problem, if the question or the answer is missing."""
        question, cells = self._value(record, "question"), self._cells(record, "answers")
        if is_missing(question):
            self._note("question", record.place)
            return None
        place = self._place(record)
        answers = tuple(text for cell in cells if not is_missing(cell)
                        for text in self._answers(cell, place))  # fmt: skip
        if not any(answers):
            self._note("answer", record.place)
            return None
        answers = tuple(map(self.spelled, answers))
        hint, text = self._value(record, "hint"), _one_text(question, place)
        if not is_missing(hint):
            text = f"{_one_text(hint, place)}\n{text}"
        if self.own and MARK in text and (plain := without_marks(text, len(images))) != text:
            _report(self.table.path, f"{MARK} is removed from questions, which follow pictures")
            text = plain
        kind = as_text(self._value(record, "type"))
        if self.task == "choice":
            return self._choice(record, (key, image_id, images, text), answers, kind)
        if self.metric:
            return ShortAnswerSample(key, image_id, images, text, answers, kind, (), self.metric)
        return QuestionSample(key, image_id, images, text, answers, kind)

    def _choice(
        self, record: Record, start: tuple[str, str, Images, str], answers: tuple[str, ...],
        kind: str,
    ) -> ChoiceSample | None:  # fmt: skip
        if kind == OPEN:
            return ChoiceSample(*start, answers, kind, (), (), False, self.rule)
        place = self._place(record)
        cells = self._cells(record, "options")
        options = [text for cell in cells for text in
                   (texts(cell, place) if not is_missing(cell) else ("",))]  # fmt: skip
        if len(options) == 1:
            options = list(listed(options[0]))
        if self.own:
            options = [self.spelled(option) for option in without_letters(options)]
        while options and not options[-1]:
            options.pop()
        if len(options) < 2 or not all(options):
            self._note("options", record.place)
            return None
        letters = tuple(
            right_letter(answer, options, place, is_letter=not self.own) for answer in answers
        )
        return ChoiceSample(*start, letters, kind, (), tuple(options), False, self.rule)

    def _add_caption(
        self, captions: dict[str, CaptionSample], record: Record, image_id: str, images: Images
    ) -> None:
        cells = self._cells(record, "captions")
        new = tuple(text for cell in cells if not is_missing(cell)
                    for text in self._answers(cell, self._place(record), "|"))  # fmt: skip
        if not any(new):
            self._note("caption", record.place)
            return
        old = captions.get(image_id)
        if old is not None and old.images != images:
            raise InputError(
                f"data: {self.table.path}: {record.place} and an earlier row have different "
                f"pictures with the id {image_id}; correct the table"
            )
        references = new if old is None else old.references + new
        captions[image_id] = CaptionSample(image_id, image_id, images, references)

    # cells and problems

    def _answers(self, cell: Any, place: str, marks: str = ANSWER_MARKS) -> tuple[str, ...]:
        """The texts of a cell; of one's own table, also those that | or ; separate."""
        own = texts(cell, place)
        if not self.separated or not isinstance(cell, str) or len(own) != 1:
            return own
        pieces = several(own[0], marks)
        if len(pieces) > 1 and not _spells_list(cell.strip()):
            self.split.add(repr(own[0]))
            return pieces
        return own

    def _cells(self, record: Record, name: str) -> list[Any]:
        return [record.values[column] for column in self.fields.get(name, ())]

    def _value(self, record: Record, name: str) -> Any:
        columns = self.fields.get(name)
        return record.values[columns[0]] if columns else None

    def _place(self, record: Record) -> str:
        return f"{self.table.path}: {record.place}"

    def _note(self, kind: str, place: str) -> None:
        what, advice = PROBLEMS[kind]
        self.problems.setdefault(kind, Problem(what, advice)).add(place)

    def _refuse(self, total: int) -> None:
        """InputError for the rows that do not fit, all of them counted."""
        if not total:
            raise InputError(f"data: {self.table.path} has no rows below its header")
        lines = [
            f"data: {self.table.path}: {problem.count} of {total} rows {problem.what}: "
            f"{'; '.join(problem.places)}{', ...' if problem.count > FIRST else ''}. "
            f"{problem.advice}"
            for problem in self.problems.values()
        ]
        if lines:
            raise InputError("\n".join(lines))


def _report(path: Any, text: str) -> None:
    """Warn once per process."""
    if (str(path), text) not in _reported:
        _reported.add((str(path), text))
        log.warning("data: %s: %s", path, text)


def _one_text(value: Any, place: str) -> str:
    """The text of a cell that has only one; InputError for several, and for an object."""
    if not isinstance(value, (list, tuple, dict)):
        return as_text(value)
    own = texts(value, place)
    if len(own) != 1:
        raise InputError(
            f"data: {place}: {shown(value)} are {len(own)} texts, but a row has one question; "
            f"write one row per question"
        )
    return own[0]


def _spells_list(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith(("['", '["'))


def _as_list(cell: Any) -> Sequence[Any]:
    return cell if isinstance(cell, (list, tuple)) else (cell,)
