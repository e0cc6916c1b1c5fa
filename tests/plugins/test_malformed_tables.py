"""A table that cannot be read gets an error that names the file, the row and the remedy."""

import base64
import io

import hub_files as hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from table_files import ROWS, read, sheet, with_pictures

from mmq.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return with_pictures(tmp_path)


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
