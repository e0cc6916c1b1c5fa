import math

import pytest

from mmq.errors import InputError
from mmq.system.strict_json import load_json


def load(tmp_path, text):
    path = tmp_path / "it.json"
    path.write_text(text)
    return load_json(path, "data")


def test_numbers_of_any_size_and_nan_are_read(tmp_path):
    result = load(tmp_path, f'\n{{"a": [NaN, {2**80}, -Infinity], "b": {{"a": 1}}}}\n')
    assert math.isnan(result["a"][0])
    assert result["a"][1:] == [2**80, -math.inf]
    assert result["b"] == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}',
         r'the key "a" appears twice \(line 1, column 2 and line 3, column 2\)'),
        ('[{"a": {"x": "}", "a": 1}},\n{"y": [{"é": 1, "\\u00e9": 1}]}]',
         r'the key "\\u00e9" appears twice \(line 2, column 9 and line 2, column 17\)'),
        ('{"a": "b\nc"}', r"Invalid control character at \(line 1, column 9\)"),
        ('{"a": }', r"Expecting value \(line 1, column 7\)"),
        ("[1] 2", r"more text after the value \(line 1, column 4\)"),
        ("", "Expecting value"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)  # fmt: skip
def test_refusals_name_their_place(tmp_path, text, message):
    with pytest.raises(InputError, match=f"data: .*it.json is not readable JSON: .*{message}"):
        load(tmp_path, text)
