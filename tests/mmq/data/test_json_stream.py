import json
import math

import pytest

from mmq.data import json_stream as module
from mmq.data.json_stream import json_stream
from mmq.errors import InputError

ROWS = [
    {"id": 2**70, "area": math.inf, "text": 'a "]}" \\ é \n', "more": [{"x": [1.5e-3, -7]}]},
    {},
    12345.678e2,
    "text, with: {brackets]",
    None,
    [[], [1]],
]


def read(path, section=""):
    """The elements of a file that is a list, or of a list in it, with their lines."""
    with json_stream(path, "data") as stream:
        if not section:
            assert stream.starts("[")
            rows = [(row, stream.line) for row in stream.items()]
        else:
            assert stream.starts("{")
            for key in stream.members():
                if key == section and stream.peek() == "[":
                    rows = [(row, stream.line) for row in stream.items()]
                else:
                    stream.skip()
        stream.finish()
    return rows


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("indent", [None, 1])
def test_entries_are_those_of_json_wherever_the_text_is_cut(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(module, "CHUNK", chunk)
    path = tmp_path / "it.json"
    path.write_text("\ufeff" + json.dumps(ROWS, indent=indent, ensure_ascii=False), "utf-8")
    assert [row for row, _ in read(path)] == ROWS
    content = {"info": {"a": 1}, "other": ROWS, "rows": ROWS[:3], "n": 1, "empty": []}
    path.write_text(json.dumps(content, indent=indent))
    result = read(path, "rows")
    assert [row for row, _ in result] == ROWS[:3]
    lines = path.read_text().splitlines()
    if indent:
        assert ["1234567.8" not in lines[0], "1234567.8" in lines[result[2][1] - 1]] == [True] * 2
    assert read(path, "empty") == []


@pytest.mark.parametrize("chunk", [3, 10_000])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": 1, "a": 2}]', r'the key "a" appears twice .line 2.* and line 2'),
        ('[{"a": 1},\n{"a": 1, "b": }]', r"Expecting value .line 2"),
        ('[{"a": 1},\n{"a": 1} {"b": 2}]', r"Expecting ',' delimiter.* .line 2"),
        ('[{"a": 1},\n]', r"Expecting value .line 2"),
        ('[{"a": 1},\n{"a": "1', r"Unterminated string starting at .line 2"),
        ('[{"a": 1}', r"Expecting ',' delimiter.* .line 1, column 10"),
        ("[1] [2]", "text after the end"),
        ("", "the file is empty"),
        ("<html>", "a list or an object should start .line 1, column 1"),
        ("[" * 5000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "Exceeds the limit"),
        (b'[1,\n"\xff"]', "line 2 is not UTF-8 text"),
        (b'[1,\n"\xc3', "line 2 is not UTF-8 text"),
        ("[1]".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ],
)
def test_an_error_has_a_position(tmp_path, monkeypatch, chunk, text, message):
    monkeypatch.setattr(module, "CHUNK", chunk)
    path = tmp_path / "it.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read(path)


def test_no_entry_may_be_larger_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(module, "ENTRY_LIMIT", 1000)
    path = tmp_path / "it.json"
    path.write_text(json.dumps(["x" * 900] * 20))
    assert len(read(path)) == 20
    path.write_text(json.dumps(["x" * 90, "x" * 9000]))
    with pytest.raises(InputError, match="an entry of more than 0 MiB starts .line 1, column 96"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, 2: 3}', "Expecting property name"),
        ('{"a" 1}', "Expecting ',' delimiter"),
        ('{"a", 1}', "Expecting ':' delimiter"),
        ('{"a": 1,}', "Expecting property name"),
        ('{"a": 1', "Expecting ',' delimiter"),
    ],
)
def test_objects_are_read_key_by_key(tmp_path, text, message):
    def members(content):
        path = tmp_path / "it.json"
        path.write_text(content)
        with json_stream(path, "data") as stream:
            assert not stream.starts("[")
            return [(key, stream.value()) for key in stream.members()]

    assert members('{"a" : 1, "b":[2]}') == [("a", 1), ("b", [2])]
    with pytest.raises(InputError, match=message):
        members(text)
