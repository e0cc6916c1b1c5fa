"""METEOR's process is restarted if it dies, independent of the locale, and robust to any text."""

import os
import signal
import sys

import pytest
from mmq_plugins.evaluators import meteor as module
from mmq_plugins.evaluators.caption_text import tokenize
from mmq_plugins.evaluators.line_process import ChildError, LineProcess
from mmq_plugins.evaluators.meteor import MeteorProcess

from mmq.errors import InputError

JAVA_OPTIONS = {
    "LC_ALL": "de_DE.UTF-8",
    "LANG": "de_DE.UTF-8",
    "LC_NUMERIC": "de_DE.UTF-8",
    "CLASSPATH": "/nowhere",
    "_JAVA_OPTIONS": "-Duser.language=de -Duser.country=DE",
    "JAVA_TOOL_OPTIONS": "-Duser.language=de",
    "JDK_JAVA_OPTIONS": "-Duser.language=de -Xmx1M",
}


@pytest.fixture(scope="module")
def meteor():
    """Started under a user's German Java options."""
    before = dict(os.environ)
    os.environ.update(JAVA_OPTIONS)
    process = MeteorProcess()
    try:
        process.check()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield process
    process.close()


def one(meteor, caption, *references):
    tokens = tokenize({"caption": [caption], "references": list(references)})
    (value,), corpus = meteor.score(tokens["caption"], [tokens["references"]])
    assert value == corpus
    return value


def test_scores_are_those_of_any_locale(meteor):
    assert one(meteor, "a red cat sat", "the red cats sit") == pytest.approx(0.66)


@pytest.mark.parametrize(
    "special",
    ["|||", " ||| ", "||||||", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x00",
     "\ud800", "\t", "\U0001f600", "中文", "שלום", "&amp;", "-LRB-", "\\", '"', "%s", "EVAL"],
)  # fmt: skip
def test_a_caption_like_its_reference_scores_1_whatever_the_characters(meteor, special):
    text = f"a red dog {special} runs{special}on grass"
    assert one(meteor, text, text, "two cats") == pytest.approx(1)


def test_a_separator_in_a_reference_is_no_word_and_cuts_nothing(meteor):
    result = one(meteor, "a red dog runs on grass", "a red dog ||| runs on grass")
    assert result == pytest.approx(1)


def test_a_caption_without_a_word_scores_0(meteor):
    assert one(meteor, "", "a red dog") == 0
    assert one(meteor, "...", "a red dog", "a dog") == 0


def test_a_killed_process_is_renewed_and_scores_the_same_captions(monkeypatch):
    monkeypatch.setattr(module, "java_command", fake_meteor("print('0.66')"))
    process = MeteorProcess()
    first = process.score(["a", "b"], [["a"], ["b"]])
    killed = process.pid
    os.kill(killed, signal.SIGKILL)
    assert process.score(["a", "b"], [["a"], ["b"]]) == first == ([0.66, 0.66], 0.66)
    assert process.pid not in (None, killed)
    process.close()
    assert process.pid is None


def fake_meteor(on_eval, on_score="print('1 2')"):
    """A command that answers as METEOR does: on_eval is run once per answer to EVAL."""
    code = f"""
import sys, time
for line in iter(sys.stdin.readline, ""):
    if line.startswith("SCORE"):
        {on_score}
    else:
        for _ in line.split("|||"):
            {on_eval}
    sys.stdout.flush()
"""
    return lambda *_: [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("print('1 2') if 'dog' not in line else sys.exit(7)",
         "exit code 7.*at caption 2: 'a dog'"),
        ("print('1 2' if 'dog' not in line else '0,5')", "answered '0,5' instead of numbers"),
    ],
)  # fmt: skip
def test_a_caption_that_kills_it_twice_is_named_with_the_cause(monkeypatch, score, message):
    monkeypatch.setattr(module, "java_command", fake_meteor("print('0.66')", score))
    process = MeteorProcess()
    with pytest.raises(ChildError, match=message):
        process.score(["a cat", "a dog"], [["x"], ["y"]])
    assert process.score(["a cat"], [["x"]]) == ([0.66], 0.66)
    process.close()


def test_a_caption_at_which_it_hangs_is_named(monkeypatch):
    hangs = "print('1 2') if 'dog' not in line else time.sleep(600)"
    monkeypatch.setattr(module, "java_command", fake_meteor("print('0.66')", hangs))
    ask = LineProcess.ask

    def briefly(self, line, timeout, *answers):
        return ask(self, line, 0.2 if "dog" in line else timeout, *answers)

    monkeypatch.setattr(LineProcess, "ask", briefly)
    process = MeteorProcess()
    with pytest.raises(ChildError, match="did not answer within 0.2 s .at caption 2: 'a dog'"):
        process.score(["a cat", "a dog"], [["x"], ["y"]])
    process.close()


def test_a_scorer_that_scores_a_known_caption_wrong_is_refused(monkeypatch):
    monkeypatch.setattr(module, "java_command", fake_meteor("print('0.5')"))
    with pytest.raises(InputError, match="METEOR.* reference caption 0.5 instead of 0.66"):
        MeteorProcess().check()
