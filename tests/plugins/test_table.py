"""Tables as people write them are read, and rows that do not fit are explained."""

import base64
import io
import json
import sys
import types

import hub_files as hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmq_plugins.datasets.table import Table
from PIL import Image

from mmq.data.image_checks import check_images
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.testing import DatasetContract

ROWS = "image,question,answer\na.png,What is it?,a cat\nb.png,What is it?,a dog\n"


@pytest.fixture
def folder(tmp_path):
    """Pictures a.png to d.png, and more in photos/."""
    for place in (tmp_path, tmp_path / "photos"):
        place.mkdir(exist_ok=True)
        names = "abcd" if place == tmp_path else ("IMG_1", "IMG_2")
        for name in names:
            (place / f"{name}.png").write_bytes(hub.png())
    return tmp_path


def read(path, task="vqa", fields=""):
    """The samples, with every picture opened."""
    samples = find_source(task, str(path), fields=fields).samples()
    check_images(samples, quiet=True)
    return samples


def sheet(folder, content, name="sheet.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestCsvFolder(DatasetContract):
    def make(self):
        return Table()

    def root(self, tmp_path):
        for split in ("train", "test"):
            for k in range(2):
                (tmp_path / f"{split}{k}.png").write_bytes(hub.png())
            rows = "".join(f"{split}{k}.png,What?,x\n" for k in range(2))
            sheet(tmp_path, f"image,question,answer\n{rows}", f"{split}.csv")
        return tmp_path


class TestImagefolder(TestCsvFolder):
    def root(self, tmp_path):
        for split in ("train", "validation"):
            (tmp_path / split).mkdir()
            (tmp_path / split / "x.png").write_bytes(hub.png())
            row = {"file_name": "x.png", "question": "What?", "answers": ["x", "y"]}
            sheet(tmp_path / split, json.dumps(row) + "\n", "metadata.jsonl")
        return tmp_path


class TestVlmEvalKit(TestCsvFolder):
    def make(self):
        return Table("choice")

    def root(self, tmp_path):
        picture = base64.b64encode(hub.png()).decode()
        lines = [
            "index\tquestion\tA\tB\tC\tanswer\timage",
            f"7\tWhich?\tx\ty\t\tB\t{picture}",
            "8\tWho?\tx\ty\tz\tC\t7",
        ]
        sheet(tmp_path, "\n".join(lines), "MMBench_DEV.tsv")
        return tmp_path


class TestParquetTable(TestCsvFolder):
    def root(self, tmp_path):
        rows = [{"photo": hub.png(), "query": "What?", "label": k} for k in range(3)]
        hub.write(tmp_path / "mine.parquet", rows)
        return tmp_path


def test_a_vlmevalkit_table_shares_pictures_by_index(tmp_path):
    rows = read(TestVlmEvalKit().root(tmp_path) / "MMBench_DEV.tsv", "choice")
    assert rows[0].images == rows[1].images
    assert [row.image_id for row in rows] == ["7", "7"]
    assert [row.options for row in rows] == [("x", "y"), ("x", "y", "z")]


ENCODED = base64.b64encode(hub.png((40, 40))).decode()
GERMAN = "Foto;Frage;Antwort\nIMG_1.png;Wie groß?;3,5\nIMG_2.png;Wie süß?;1,25\n"
READABLE = {  # a sheet that people keep -> the answers that are read from it
    "with a byte order mark": (b"\xef\xbb\xbf" + ROWS.encode(), ["a cat", "a dog"]),
    "of Excel in UTF-16": (ROWS.replace(",", "\t").encode("utf-16"), ["a cat", "a dog"]),
    "of a German Excel": (GERMAN.encode("cp1252"), ["3.5", "1.25"]),
    "with sep=;": ("sep=;\n" + ROWS.replace(",", ";"), ["a cat", "a dog"]),
    "with line breaks in cells": (
        'image,question,answer\r\na.png,"What, or\nwho?","a ""cat"""\r\n', ['a "cat"'],
    ),
    "with empty rows and columns": ("image,question,answer,,\n\na.png,Q?,x,,\n,,,,\n", ["x"]),
    "with upper case and spaces": ("Image , Question,ANSWER\nA.PNG,Q?, x \n", ["x"]),
    "with paths of Windows": ("image,question,answer\nC:\\me\\photos\\img_2.png,Q?,x\n", ["x"]),
    "without endings": ("image,question,answer\nIMG_1,Q?,x\n", ["x"]),
    "with a data URI": (
        f"image,question,answer\n\"data:image/png;base64,{ENCODED}\",Q?,x\n", ["x"],
    ),
    "with base64": (f"image,question,answer\n{ENCODED},Q?,x\n", ["x"]),
    "of an old Mac": (b"\xef\xbb\xbf" + ROWS.replace("\n", "\r").encode(), ["a cat", "a dog"]),
    "with thousands in German": ("image;question;answer\na.png;Q?;1.234,5\n", ["1234.5"]),
    "with punctuation in the header": ("The Image:,Question?,Answer.\na.png,Q?,x\n", ["x"]),
    "with doubtful commas": ('image;question;answer\na.png;Q?;1,234\n', ["1,234"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", READABLE)
def test_sheets_as_people_keep_them_are_read(kind, folder):
    content, answers = READABLE[kind]
    rows = read(sheet(folder, content))
    assert [row.answers[0] for row in rows] == answers


def test_answers_may_be_lists_however_they_are_written(folder):
    cells = ["\"['a', 'b']\"", '"[""a"", ""b""]"']
    for cell in cells:
        path = sheet(folder, f"image,question,answers\na.png,Q?,{cell}\n")
        assert read(path)[0].answers == ("a", "b")
    lines = [{"image": "a.png", "question": "Q?", "answers": ["a", 2.0]}]
    assert read(sheet(folder, json.dumps(lines), "x.json"))[0].answers == ("a", "2")
    path = sheet(folder, "image,question,answer_1,answer_2\na.png,Q?,a,b\n")
    assert read(path)[0].answers == ("a", "b")


def test_answers_that_a_cell_separates_are_several_and_reported(folder, caplog):
    cells = {"red|crimson": ("red", "crimson"), "red; dark red": ("red", "dark red"),
             '"[""a; b""]"': ("a; b",), "I see; I am sure that it is red": None}  # fmt: skip
    for task in ("vqa", "short-answer"):
        path = sheet(folder, "image,question,answer\n" + "".join(f"a.png,Q?,{c}\n" for c in cells))
        answers = [row.answers for row in read(path, task)]
        assert answers == [own or (cell,) for cell, own in cells.items()]
    assert "2 cells are read as several answers, e.g. 'red|crimson'; write a list" in caplog.text
    path = sheet(folder, "image,question,answer\na.png,Q?,yes|no\n", "y.csv")
    assert read(path, "yes-no")[0].answers == ("yes|no",)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("options", "red|blue"), ("options", '"A. red\nB. blue"'), ("options", "red;blue"),
        ("Option A,Option B", "red,blue"), ("option_a,option_b", "red,blue"), ("a,b", "red,blue"),
    ],
)  # fmt: skip
def test_options_are_read_however_a_sheet_has_them(header, cells, folder):
    path = sheet(folder, f"image,question,{header},answer\na.png,Q?,{cells},blue\n")
    (row,) = read(path, "choice")
    assert (row.options, row.answers) == (("red", "blue"), ("B",))


def test_columns_inside_objects_of_json_have_names_with_dots(folder):
    row = {"photo": {"path": "a.png", "size": 3}, "qa": {"question": "Q?", "answer": ["x", "y"]}}
    for text, name in ((json.dumps(row), "x.jsonl"), (json.dumps([row]), "x.json")):
        (sample,) = read(sheet(folder, text, name))
        assert (sample.question, sample.answers) == ("Q?", ("x", "y"))
    row = {"meta": {"bild": {"bytes": ENCODED}}, "was": "Q?", "qa": {"loesung": "x"}}
    fields = "image=meta.bild.bytes,question=was,answers=qa.loesung"
    (sample,) = read(sheet(folder, json.dumps(row), "y.jsonl"), fields=fields)
    assert sample.image.size() == (40, 40)


def test_accents_of_a_file_name_may_be_letters_of_their_own(folder):
    (folder / "Zoe\u0308.png").write_bytes(hub.png())
    assert len(read(sheet(folder, "image,question,answer\nZoë.png,Q?,x\n"))) == 1


def test_columns_of_any_name_are_given_by_fields(folder):
    path = sheet(folder, "n,bild 1,bild 2,was,loesung\n5,a.png,b.png,Q?,x\n")
    (row,) = read(path, fields="id=n,image=bild 1+bild 2,question=was,answers=loesung")
    assert (row.id, len(row.images), row.question, row.answers) == ("5", 2, "Q?", ("x",))


def test_a_table_in_the_current_folder_finds_its_pictures(folder, monkeypatch, caplog):
    sheet(folder, ROWS)
    monkeypatch.chdir(folder)
    assert [row.image_id for row in read("sheet.csv")] == ["a.png", "b.png"]
    assert "not at the paths in the table" not in caplog.text


def test_guessed_columns_are_reported_in_one_line(folder, caplog):
    read(sheet(folder, ROWS.replace("image,question", "photo,query")))
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "guessed" in line] == [
        f"data: {folder / 'sheet.csv'}: guessed image=photo,question=query,answers=answer; "
        f"--fields changes it"
    ]


def test_rows_of_one_picture_become_one_sample_with_their_captions(folder):
    path = sheet(folder, "file,caption\na.png,a cat\nb.png,a dog\na.png,an animal\n")
    rows = read(path, "captioning")
    assert [row.references for row in rows] == [("a cat", "an animal"), ("a dog",)]


def test_the_right_option_may_be_a_letter_or_its_text(folder):
    path = sheet(
        folder,
        "image,question,options,answer\na.png,Q?,\"['red', 'blue']\",blue\n"
        "b.png,Q?,\"['1', '2', '3']\",2\na.png,Q?,\"['x', 'y']\",(a)\n",
    )
    assert [row.answers for row in read(path, "choice")] == [("B",), ("B",), ("A",)]


def test_json_lines_may_hold_pictures_and_large_numbers(folder):
    row = {"id": 2**70, "image": ENCODED, "question": "Q?", "answer": 3.0, "unread": [2**65]}
    (sample,) = read(sheet(folder, json.dumps(row), "x.jsonl"))
    assert (sample.id, sample.answers, sample.image.size()) == (str(2**70), ("3",), (40, 40))


def test_a_json_file_may_have_an_object_per_line(folder):
    line = '{"image": "a.png", "question": "Q?", "answer": "x"}\n'
    assert len(read(sheet(folder, line * 2, "x.json"))) == 2


def test_numbers_of_declared_classes_are_read_as_their_names(tmp_path):
    feature = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    info = {"info": {"features": {"label": feature, "image": {"_type": "Image"}}}}
    columns = {"image": [hub.png()] * 2, "question": ["Q?"] * 2, "label": [1, 0]}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [row.answers for row in read(tmp_path / "x.parquet")] == [("dog",), ("cat",)]


def test_the_only_column_of_pictures_in_parquet_may_have_any_name(tmp_path):
    hub.write(tmp_path / "x.parquet", [{"jpg": hub.png(), "question": "Q?", "answer": "x"}])
    assert len(read(tmp_path / "x.parquet")) == 1


def test_excel_sheets_are_read_or_the_package_is_named(folder, monkeypatch):
    path = sheet(folder, b"PK", "x.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs openpyxl; install it.*or save the sheet as CSV"):
        read(path)
    rows = [("image", "question", "answer"), ("a.png", "Q?", 3.0), (None, None, None)]
    book = types.SimpleNamespace(sheetnames=["one", "two"])
    pages = {"one": types.SimpleNamespace(iter_rows=lambda values_only: iter(rows))}
    module = types.SimpleNamespace(load_workbook=lambda *_, **__: _Book(book, pages))
    monkeypatch.setitem(sys.modules, "openpyxl", module)
    assert read(path)[0].answers == ("3",)


class _Book:
    def __init__(self, book, pages):
        self.sheetnames, self.pages = book.sheetnames, pages

    def __getitem__(self, name):
        return self.pages[name]


def test_a_sheet_that_does_not_fit_shows_its_columns_and_the_call_that_works(folder):
    path = sheet(folder, "bilddatei;was;loesung\na.png;Was?;rot\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).splitlines() == [
        f"data: {path} has no column for: image, question, answers (task vqa)",
        "Columns: bilddatei, was, loesung",
        "First row: bilddatei='a.png', was='Was?', loesung='rot'",
        f"Name the columns: --data {path} --task vqa "
        f"--fields image=bilddatei,question=was,answers=loesung",
    ]
    assert len(read(path, fields="image=bilddatei,question=was,answers=loesung")) == 1


def test_a_row_group_is_read_as_a_stream_and_a_text_column_may_hold_pictures(tmp_path):
    rows = [{"image": ENCODED, "question": f"{k}?", "answer": "x"} for k in range(70)]
    hub.write(tmp_path / "x.parquet", rows, group=50)
    samples = read(tmp_path / "x.parquet")
    assert len(samples) == 70
    assert samples[69].image.open().size == samples[3].image.open().size == (40, 40)


def large_picture():
    data = io.BytesIO()
    Image.new("1", (20000, 20000)).save(data, "PNG")
    return data.getvalue()


def cut_parquet(folder):
    rows = [{"image": hub.png(), "question": "Q?", "answer": "x"}] * 3
    path = hub.write(folder / "cut.parquet", rows)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def parquet(folder, **columns):
    path = folder / "x.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def tall(rows, header="image,question,answer"):
    return lambda folder: sheet(folder, f"{header}\n{rows}")


def named(name, content):
    return lambda folder: sheet(folder, content, name)


def with_file(name, content, rows):
    def make(folder):
        sheet(folder, content, name)
        return sheet(folder, f"image,question,answer\n{rows}")

    return make


def folder_of_tables(folder):
    (folder / "many").mkdir()
    for name in ("a", "b"):
        sheet(folder / "many", ROWS, f"{name}.csv")
    return folder / "many"


def directory_as_picture(folder):
    (folder / "dir.png").mkdir()
    return sheet(folder, "image,question,answer\ndir.png,Q?,x\n")


def two_of_a_name(folder):
    (folder / "other").mkdir()
    (folder / "other" / "IMG_1.png").write_bytes(hub.png())
    return sheet(folder, "image,question,answer\nIMG_1.png,Q?,x\n")


NAN = [float("nan"), 1.0]
# what is wrong -> how it is made, what the error says, task, --fields
MALFORMED = {
    "no such file": (lambda folder: folder / "x.csv", "there is no file"),
    "a folder without a table": (lambda folder: folder / "photos", "contains no data set"),
    "a folder with several": (folder_of_tables, r"several tables: a.csv, b.csv; pass one"),
    "an old Excel file": (named("x.xls", "x"), r"x.xls is not read directly; save .* as CSV"),
    "an empty file": (named("x.csv", ""), "is empty; its first line should name the columns"),
    "a header alone": (tall(""), "has no rows below its header"),
    "no header": (tall("", "a.png,What is it?,a cat"), "first line seems to be a row"),
    "one column": (tall("", "image"), "Add the missing columns"),
    "a column twice": (tall("", "image,answer,answer"), "columns 2 and 3 are both named 'answer'"),
    "two columns for a field": (
        tall("a.png,Q?,x,y\n", "image,question,label,target"),
        "several columns may be the answers: label, target; write --fields answers=label or",
    ),
    "captions in place of answers": (
        tall("a.png,a cat\n", "image,caption"), "It has captions: .* --task captioning",
    ),
    "a column that is not there": (tall(""), "Unknown column 'foto'", "vqa", "image=foto"),
    "a field that is not there": (tall(""), "Unknown field 'imag'", "vqa", "imag=image"),
    "fields without =": (tall(""), "'image' is not FIELD=COLUMN", "vqa", "image"),
    "a field twice": (tall(""), "image is given twice", "vqa", "image=image,images=question"),
    "a short row": (tall("a.png,Q?\n"), r"line 2 has 2 cells, but the header has 3"),
    "a decimal comma": (tall("a.png,Q?,3,5\n"), r"line 2 has 4 cells.*put quotes around"),
    "an open quote": (tall('a.png,"Q?,x\nb.png,Q?,x\n'), "row in line 2 is not valid CSV"),
    "mixed encodings": (
        named("x.csv", (ROWS + "a.png,süß,x\n").encode() + "a.png,süß,x\n".encode("cp1252")),
        "mixes encodings: line 4 is UTF-8, line 5 is not",
    ),
    "another code page": (
        named("x.csv", ROWS.encode() + b"a.png,\x81\x8d,x\n"), "line 4 is neither UTF-8 nor",
    ),
    "NUL bytes": (named("x.csv", ROWS.encode() + b"a.png,\0,x\n"), "line 4 contains NUL"),
    "a missing picture": (
        tall("a.png,Q?,x\nz.png,Q?,x\n"), r"1 of 2 rows name a picture .* not there: line 3 \('z",
    ),
    "an empty picture cell": (tall(",Q?,x\n"), "1 of 1 rows have no picture: line 2"),
    "an address": (tall("https://x.org/a.png,Q?,x\n"), "mmq downloads nothing; download"),
    "two pictures of a name": (two_of_a_name, "may be .*IMG_1.png or .*IMG_1.png; write"),
    "a folder as a picture": (directory_as_picture, "dir.png is a folder.*sample 1"),
    "a damaged picture": (with_file("z.png", b"x", "z.png,Q?,x\n"),
    "z.png cannot be read.*sample"),
    "a huge picture": (
        with_file("z.png", large_picture(), "z.png,Q?,x\n"),
        "z.png cannot be read .*decompression",
    ),
    "wrong base64": (
        tall('"data:image/png;base64,?!",Q?,x\n'), r"line 2 \(image\) is not valid base64",
    ),
    "a data URI without base64": (
        tall('"data:image/png,abc",Q?,x\n'), r"is not data:image/\.\.\.;base64",
    ),
    "base64 of a text": (
        tall(f"{base64.b64encode(b'x' * 300).decode()},Q?,x\n"),
        r"line 2 \(image\) cannot be read",
    ),
    "the same id twice": (
        tall("1,a.png,Q?,x\n1,b.png,Q?,y\n", "id,image,question,answer"),
        "line 2 and line 3 have the same id '1'",
    ),
    "one image id for two pictures": (
        tall("1,a.png,Q?,x\n1,b.png,Q?,y\n", "image_id,image,question,answer"),
        "two pictures with the id 1",
    ),
    "an empty answer": (tall("a.png,Q?,\nb.png,Q?,x\n"), "1 of 2 rows have no answer: line 2"),
    "nan as an answer": (tall("a.png,Q?,NaN\n"), "1 of 1 rows have no answer: line 2"),
    "an error of Excel": (tall("a.png,Q?,#N/A\n"), "have no answer: line 2"),
    "an empty question": (tall("a.png, ,x\n"), "1 of 1 rows have no question: line 2"),
    "a list that is cut": (tall("a.png,Q?,\"['a', 'b\"\n"), "line 2: .*is not a valid list"),
    "an array of NumPy": (tall("a.png,Q?,\"['a' 'b']\"\n"), "line 2: .*is a NumPy array"),
    "too few options": (
        tall("a.png,Q?,x,A\n", "image,question,options,answer"),
        "fewer than two options.*: line 2", "choice",
    ),
    "a number in place of a letter": (
        tall("a.png,Q?,\"['x', 'y']\",1\n", "image,question,options,answer"),
        "'1' is not a letter from A to B.*count from 0 or from 1; write the letter", "choice",
    ),
    "a letter that is another option's text": (
        tall("a.png,Q?,\"['b', 'a']\",a\n", "image,question,options,answer"),
        r"'a' is a letter and also the text of the option B; write .*: \(A\) or \(B\)", "choice",
    ),
    "an empty caption": (tall("a.png,\n", "image,caption"), "have no caption", "captioning"),
    "JSON that is cut": (named("x.jsonl", '{"image": "a.png", '), "line 1 is not valid JSON"),
    "a JSON key twice": (
        named("x.jsonl", '{"image": "a.png", "answer": "x", "answer": "y"}'),
        "line 1 .*the key \"answer\" appears twice",
    ),
    "a JSON list in a line": (named("x.jsonl", "[1]"), "line 1 is not an object"),
    "two lists in JSON": (
        named("x.json", '{"a": [{"image": "a.png"}], "b": [{}]}'),
        "several lists, the second is 'b'",
    ),
    "JSON without a list": (named("x.json", '{"a": 1}'), "has no list of rows"),
    "JSON with NaN": (
        named("x.json", '[{"image": "a.png", "question": "Q?", "answer": NaN}]'),
        "have no answer: entry 1",
    ),
    "a cut parquet": (cut_parquet, "cannot be read as parquet .*download it again"),
    "a pointer of Git LFS": (
        named("x.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of Git LFS; run `git lfs pull`",
    ),
    "a picture that is a pointer": (
        with_file("z.png", "version https://git-lfs.github.com/spec/v1\n", "z.png,Q?,x\n"),
        "z.png is a pointer of Git LFS",
    ),
    "text as parquet": (named("x.parquet", ROWS), "cannot be read as parquet"),
    "NaN in parquet": (
        lambda folder: parquet(folder, image=["a.png", "b.png"], question=["Q?"] * 2, answer=NAN),
        r"1 of 2 rows have no answer: row 1 of x\.parquet",
    ),
    "an empty parquet": (
        lambda folder: parquet(folder, image=pa.array([], pa.string()), question=pa.array([]),
                               answer=pa.array([])),
        "has no rows",
    ),
    "a parquet cell without a picture": (
        lambda folder: parquet(folder, image=[hub.png(), None], question=["Q?"] * 2,
                               answer=["x"] * 2),
        "1 of 2 rows have no picture: row 2",
    ),
    "a damaged picture in parquet": (
        lambda folder: parquet(folder, image=[b"x"], question=["Q?"], answer=["x"]),
        r"x\.parquet, row 1 \(image\) cannot be read.*sample 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_tables_give_a_clear_error(kind, folder):
    make, message, task, fields = (*MALFORMED[kind], *("vqa", "")[len(MALFORMED[kind]) - 2 :])
    path = make(folder)
    with pytest.raises(InputError, match=f"(?s){message}"):
        read(path, task, fields)


def test_long_texts_are_read_and_not_taken_for_pictures(folder):
    long = "x" * 200_000  # more than the csv module reads by default
    (row,) = read(sheet(folder, f"image,question,answer\na.png,{long},x\n"))
    assert row.question == long
