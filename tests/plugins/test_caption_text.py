"""Texts pass the tokenizer without being cut, shifted or lost; captions and references alike."""

import random

import pytest
from mmq_plugins.evaluators import caption_text
from mmq_plugins.evaluators.caption_text import plain_text, tokenize

from mmq.errors import InputError

SPECIAL = [
    *("|||", "||||", " ||| ", "\n", "\r", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"),
    *("\x1f", "\x85", "\u2028", "\u2029", "\x00", "\x01", "\x7f", "\xa0", "\u200b", "\ufeff"),
    *(
        "\ud800",
        "\udfff",
        "\ufffe",
        "\ufffd",
        "\U0001f600",
        "\u202e",
        "*NL*",
        "<",
        "&amp;",
        "e\u0301",
    ),
]


@pytest.mark.parametrize("special", SPECIAL)
def test_a_plain_text_is_one_line_that_utf8_can_carry(special):
    text = plain_text(f"a{special}b {special}")
    assert len(text.splitlines()) == 1
    assert text.encode("utf-8").decode("utf-8") == text
    assert "|||" not in text
    assert plain_text(text) == text
    assert text.startswith("a")


def test_surrogates_that_belong_together_are_one_character():
    assert plain_text("\ud83d\ude00 dog \ud83d") == "\U0001f600 dog \ufffd"


def test_no_text_shifts_its_neighbours_whatever_it_holds():
    rng = random.Random(0)
    texts = {}
    for k in range(300):
        parts = rng.choices(SPECIAL, k=rng.randrange(4))
        texts[str(k)] = ["".join([*parts, f" text{k} ", *parts]), "".join(parts), f"end{k}"]
    tokens = tokenize(texts)
    assert list(tokens) == list(texts)
    for k in range(300):
        assert f"text{k}" in tokens[str(k)][0]
        assert tokens[str(k)][2] == f"end{k}"


def test_lines_that_the_tokenizer_loses_are_found_by_halves(monkeypatch):
    def loses_x(lines):
        return [part for line in lines for part in ([] if line == "x" else line.split("/"))]

    monkeypatch.setattr(caption_text, "_run", loses_x)
    assert tokenize({"1": ["a", "x"], "2": ["b", "c/d"], "3": ["y/z", "e"]}) == {
        "1": ["a", ""],
        "2": ["b", "c d"],
        "3": ["y z", "e"],
    }


def test_a_tokenizer_that_fails_is_started_again_once_and_then_named(monkeypatch, tmp_path):
    ran = tmp_path / "ran"
    fails_once = f"test -e {ran} && exec cat; touch {ran}; echo no memory >&2; exit 1"
    monkeypatch.setattr(caption_text, "java_command", lambda *_: ["sh", "-c", fails_once])
    assert tokenize({"1": ["a dog", ""]}) == {"1": ["a dog", ""]}
    always = "echo no memory >&2; exit 1"
    monkeypatch.setattr(caption_text, "java_command", lambda *_: ["sh", "-c", always])
    with pytest.raises(InputError, match="PTBTokenizer.* failed twice: .*no memory"):
        tokenize({"1": ["a dog"]})
