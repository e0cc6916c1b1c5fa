"""Tables as people write them are read, and rows that do not fit are explained."""

import base64
import json
import sys
import types

import hub_files as hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmq_plugins.datasets.table import Table
from mmq_plugins.datasets.text_files import passages
from table_files import ROWS, read, sheet, with_pictures

from mmq.config import TaskOptions
from mmq.data.draw import draw_data
from mmq.errors import InputError
from mmq.testing import DatasetContract


@pytest.fixture
def folder(tmp_path):
    return with_pictures(tmp_path)


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
    "with thousands and decimals": ("image;question;answer\na.png;Q?;1.500\na.png;Q?;0,5 €\n",
                                    ["1500", "0.5 €"]),
    "with empty rows above": (",,\n\n" + ROWS, ["a cat", "a dog"]),
    "with spaces behind commas": ('image, question, answer\na.png, "What, who?", x\n', ["x"]),
    "with whole numbers of pandas": ("image,question,answer\na.png,Q?,3.0\na.png,Q?,12.0\n",
                                     ["3", "12"]),
    "with versions": ("image,question,answer\na.png,Q?,3.0\na.png,Q?,3.5\n", ["3.0", "3.5"]),
    "with doubtful points": ("image;question;answer\na.png;Q?;1.500\n", ["1.500"]),
    "with marks of pictures": ("image,question,answer\na.png,<image> Q?,x\n", ["x"]),
    "with thousands of a unit": ("image;question;answer\na.png;Q?;1,234 $\n", ["1,234 $"]),
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
        ("A.,B.", "red,blue"),
    ],
)  # fmt: skip
def test_options_are_read_however_a_sheet_has_them(header, cells, folder):
    path = sheet(folder, f"image,question,{header},answer\na.png,Q?,{cells},blue\n")
    (row,) = read(path, "choice")
    assert (row.options, row.answers) == (("red", "blue"), ("B",))


def test_objects_in_lists_and_conversations_have_columns_of_their_own(folder):
    rows = {
        "question=qa.q,answers=qa.all.text": {
            "qa": {"q": "Q?", "all": [{"text": "x"}, {"text": "y"}]}
        },
        "": {"turns": [{"from": "human", "value": "<image>\nQ?"}, {"from": "gpt", "value": "x"}]},
    }
    for fields, row in rows.items():
        path = folder / f"{len(fields)}.jsonl"
        path.write_text(json.dumps({"image": "a.png"} | row))
        (sample,) = read(path, fields=fields)
        assert sample.question == "Q?"
        assert sample.answers == (("x", "y") if fields else ("x",))


def test_objects_and_lists_are_never_read_as_text(folder):
    for cell in ({"en": "What?"}, ["What?", "Who?"]):
        path = folder / "q.jsonl"
        rows = [{"image": "a.png", "question": text, "answer": "x"} for text in ("Q?", cell)]
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(InputError, match=r"line 2.*(not a text|2 texts)"):
            read(path)


def test_parquet_has_columns_inside_objects_and_short_floats(tmp_path):
    row = {"image": hub.cell(), "query": {"de": "Was?", "en": "What?"}, "answer": 0.1}
    path = hub.write(tmp_path / "a.parquet", [row], types={"answer": pa.float32()})
    (sample,) = read(path, fields="question=query.en")
    assert (sample.question, sample.answers) == ("What?", ("0.1",))
    row = {"image": hub.cell(), "sentences": [{"raw": "a cat", "id": 1}, {"raw": "cats", "id": 2}]}
    (sample,) = read(hub.write(tmp_path / "b.parquet", [row]), "captioning")
    assert sample.references == ("a cat", "cats")


def test_different_pictures_with_one_id_are_refused(tmp_path):
    one, other = hub.cell(), hub.cell()
    rows = [{"image": one, "question": "Q?", "answer": "x", "image_id": 1} for _ in range(2)]
    first, second = read(hub.write(tmp_path / "a.parquet", rows))
    assert first.images == second.images
    rows[1]["image"] = other
    with pytest.raises(InputError, match="different pictures with the same id '1'"):
        read(hub.write(tmp_path / "b.parquet", rows))


def test_captions_of_a_picture_that_repeats_without_an_id_are_reported(tmp_path, caplog):
    cell = hub.cell()
    rows = [{"image": cell, "caption": f"a thing {k}"} for k in range(2)]
    options = TaskOptions(data=str(hub.write(tmp_path / "a.parquet", rows)), task="captioning")
    assert len(draw_data(options, "captioning", calibrated=False).samples) == 2
    assert "--fields image_id=COLUMN" in caplog.text
    rows = [row | {"cocoid": 5} for row in rows]
    (sample,) = read(hub.write(tmp_path / "b.parquet", rows), "captioning")
    assert sample.references == ("a thing 0", "a thing 1")


def test_parquet_types_of_other_writers_are_read(tmp_path):
    pictures = [hub.png(), hub.png()]
    for kind in (pa.binary_view(), pa.list_(hub.PICTURE, 1)):
        one = isinstance(kind, pa.FixedSizeListType)
        cells = [[{"bytes": p, "path": None}] if one else p for p in pictures]
        table = {
            "image": pa.array(cells, kind),
            "question": pa.array(["Q?"] * 2, pa.string_view()),
        }
        path = tmp_path / f"{one}.parquet"
        pq.write_table(pa.table(table | {"answer": ["x", "y"]}), path)
        assert [row.images[0].open().size for row in read(path)] == [(8, 6)] * 2


def test_options_lose_letters_and_the_answer_may_have_both(folder):
    rows = [{"options": ["A. cat", "B. dog"], "answer": "B. dog"},
            {"options": {"A": "cat", "B": "dog"}, "answer": "B"}]  # fmt: skip
    for k, row in enumerate(rows):
        path = folder / f"{k}.jsonl"
        path.write_text(json.dumps({"image": "a.png", "question": "Q?"} | row))
        (sample,) = read(path, "choice")
        assert (sample.options, sample.answers) == (("cat", "dog"), ("B",))
    (sample,) = read(
        sheet(folder, "image,question,options,answer\na.png,Q?,A、猫|B、狗,（B）\n"), "choice"
    )
    assert (sample.options, sample.answers) == (("猫", "狗"), ("B",))


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis", "gbk"])
def test_other_code_pages_are_refused_rather_than_misread(encoding, folder):
    word = "кошка" if encoding == "cp1251" else "这是什么" if encoding == "gbk" else "これは"
    with pytest.raises(InputError, match="as Windows-1252, it reads"):
        read(sheet(folder, ROWS.replace("a dog", word).encode(encoding)))
    with pytest.raises(InputError, match="line 2 is not UTF-8, and as Windows-1252, it reads"):
        list(passages(sheet(folder, f"One.\n{word}\n".encode(encoding), "a.txt")))


def test_columns_inside_objects_of_json_have_names_with_dots(folder):
    row = {"photo": {"path": "a.png", "size": 3}, "qa": {"question": "Q?", "answer": ["x", "y"]}}
    for text, name in ((json.dumps(row), "x.jsonl"), (json.dumps([row]), "x.json")):
        (sample,) = read(sheet(folder, text, name))
        assert (sample.question, sample.answers) == ("Q?", ("x", "y"))
    row = {"meta": {"bild": {"bytes": ENCODED}}, "was": "Q?", "qa": {"loesung": "x"}}
    fields = "image=meta.bild.bytes,question=was,answers=qa.loesung"
    (sample,) = read(sheet(folder, json.dumps(row), "y.jsonl"), fields=fields)
    assert sample.image.size() == (40, 40)


def test_a_picture_in_a_cell_is_that_of_its_column_behind_a_quoted_cell_with_a_comma(folder):
    other = base64.b64encode(hub.png((20, 20))).decode()
    path = sheet(folder, f'q, note, image_1, image_2, answer\nQ?, "x, y", {ENCODED}, {other}, x\n')
    (sample,) = read(path, fields="question=q,image=image_1+image_2")
    assert [image.size() for image in sample.images] == [(40, 40), (20, 20)]


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
    rows = [(None,), ("image", "question", "answer"), ("a.png", "Q?", 3.0), (None, None, None),
            ("b.png", "Q?", 0.125), ("b.png", "Q?", 12)]  # fmt: skip
    formats = {0.125: "0.0%", 12: '0"%"'}  # a quoted mark does not scale the number
    cells = [
        [types.SimpleNamespace(value=v, number_format=formats.get(v)) for v in row] for row in rows
    ]
    book = types.SimpleNamespace(sheetnames=["one", "two"])
    pages = {"one": types.SimpleNamespace(iter_rows=lambda: iter(cells))}
    module = types.SimpleNamespace(load_workbook=lambda *_, **__: _Book(book, pages))
    monkeypatch.setitem(sys.modules, "openpyxl", module)
    assert [row.answers[0] for row in read(path)] == ["3", "12.5%", "12"]


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


def test_long_texts_are_read_and_not_taken_for_pictures(folder):
    long = "x" * 200_000  # more than the csv module reads by default
    (row,) = read(sheet(folder, f"image,question,answer\na.png,{long},x\n"))
    assert row.question == long
