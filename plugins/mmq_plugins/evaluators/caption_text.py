"""Captions and references, cleaned and tokenized for the scorers' line protocols."""

import re
import subprocess
from collections.abc import Mapping, Sequence

from mmq.errors import InputError
from mmq_plugins.evaluators.java import java_command, java_environment, package_file

JAR = "stanford-corenlp-3.4.1.jar"
TOKENIZER = "edu.stanford.nlp.process.PTBTokenizer"
START, PER_TEXT = 120.0, 0.05  # timeout in seconds: for startup, and per text
# tokens that pycocoevalcap removes
PUNCTUATION = frozenset(
    {
        *("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"),
        *(".", "?", "!", ",", ":", "-", "--", "...", ";"),
    }
)
_SEPARATOR = re.compile(r"\|{3,}")  # METEOR's separator, which is not a word in any data set
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain_text(text: str) -> str:
    r"""A text in one line, without separators, control characters and lone surrogates.

    >>> plain_text("a red\x0bdog |||\u2028 runs\x00 on")
    'a red dog runs on'
    """
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join(_CONTROL.sub(" ", _SEPARATOR.sub(" ", whole)).split())


def tokenize(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Texts by key in the format of the caption metrics: lower-case PTB tokens, no punctuation."""
    lines = [plain_text(text) for values in texts.values() for text in values]
    tokens = iter(_tokenize(lines))
    return {key: [next(tokens) for _ in values] for key, values in texts.items()}


def _tokenize(lines: Sequence[str]) -> list[str]:
    """Each line's tokens; if output lines are missing, halves are tokenized separately."""
    if not lines:
        return []
    tokenized = _run(lines)
    if len(tokenized) == len(lines):
        return [_words(line) for line in tokenized]
    if len(lines) == 1:
        return [_words(" ".join(tokenized))]
    middle = len(lines) // 2
    return _tokenize(lines[:middle]) + _tokenize(lines[middle:])


def _run(lines: Sequence[str]) -> list[str]:
    """The tokenizer's output lines; it is restarted once if it fails."""
    jar = package_file("tokenizer", JAR)
    command = java_command("-cp", JAR, TOKENIZER, "-preserveLines", "-lowerCase")
    text = "".join(f"{line}\n" for line in lines)
    timeout = START + PER_TEXT * len(lines)
    causes: list[str] = []
    while len(causes) < 2:
        try:
            done = subprocess.run(
                command, cwd=jar.parent, env=java_environment(), input=text.encode("utf-8"),
                capture_output=True, timeout=timeout, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            causes.append(f"it did not finish within {timeout:.0f} s")
            continue
        except OSError as error:
            causes.append(f"it cannot be started: {error}")
            continue
        if done.returncode == 0:
            return done.stdout.decode("utf-8", errors="replace").split("\n")[:-1]
        stderr = " ".join(done.stderr.decode("utf-8", errors="replace").split())[:400]
        causes.append(f"it exited with code {done.returncode}{f': {stderr}' if stderr else ''}")
    raise InputError(
        f"PTBTokenizer, which splits captions into words, failed twice: {causes[-1]}. Check with "
        f"`java -version` that Java runs and that memory is free, then run the same command: it "
        f"scores the generated captions without running the model again."
    )


def _words(line: str) -> str:
    return " ".join(w for w in line.rstrip().split(" ") if w not in PUNCTUATION)
