"""METEOR 1.5 (Denkowski and Lavie 2014) by the jar that pycocoevalcap ships, in a child process.

The protocol is one line each way: SCORE ||| reference ||| ... ||| caption is answered with counts,
EVAL ||| counts ||| counts ... with one score per caption and then the corpus's.
"""

import logging
import math
import re
from collections.abc import Sequence

from mmq.errors import InputError
from mmq_plugins.evaluators.caption_text import plain_text
from mmq_plugins.evaluators.java import java_command, java_environment, package_file
from mmq_plugins.evaluators.line_process import ChildError, LineProcess

log = logging.getLogger(__name__)

JAR = "meteor-1.5.jar"
OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
START = 300.0  # timeout of the first answer in seconds: METEOR first loads 60 MB of paraphrases
ANSWER = 60.0  # timeout per caption in seconds; one takes milliseconds
REFERENCE = ("a red cat sat", "the red cats sit", 0.66)  # caption, reference, METEOR 1.5's score
_checked: set[tuple[str, ...]] = set()


class MeteorProcess:
    """METEOR in one Java process for all calls, started when needed and restarted if it dies."""

    def __init__(self) -> None:
        self._process: LineProcess | None = None

    @property
    def pid(self) -> int | None:
        """The Java process's id; None if none runs."""
        return None if self._process is None or not self._process.alive else self._process.pid

    def start(self) -> None:
        """Start Java and score a reference pair; ChildError if the score is wrong."""
        if self.pid is not None:
            return
        jar = package_file("meteor", JAR)
        package_file("meteor/data", "paraphrase-en.gz")
        command = java_command("-Xmx2G", "-jar", JAR, *OPTIONS)
        self._process = LineProcess(command, jar.parent, java_environment())
        caption, reference, expected = REFERENCE
        scores, _ = self._score([caption], [[reference]], START)
        if not math.isclose(scores[0], expected, abs_tol=1e-6):
            self.close()
            raise ChildError(
                f"it scores a reference caption {scores[0]:g} instead of {expected:g}"
            )

    def check(self) -> None:
        """InputError if METEOR cannot be started, or scores a reference pair incorrectly.

        After one success, it is started only when there are captions to score.
        """
        command = tuple(java_command("-jar", JAR))
        if command in _checked:
            return
        try:
            self.start()
            _checked.add(command)
        except (ChildError, OSError) as error:
            raise InputError(
                f"Captioning scores need METEOR, which does not run here: {error}. Check with "
                f"`java -version` that Java runs, and that 2 GB of memory are free."
            ) from error

    def score(
        self, captions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[list[float], float]:
        """METEOR of each tokenized caption against its references, and of the corpus.

        A process that dies is restarted once and scores the same captions again; then ChildError.
        """
        try:
            self.start()
            return self._score(captions, references, ANSWER)
        except (ChildError, OSError) as error:
            log.warning("METEOR's Java process failed (%s); restarting it", error)
        try:
            self.start()
            return self._score(captions, references, ANSWER)
        except OSError as error:
            raise ChildError(f"it cannot be started: {error}") from error

    def _score(
        self, captions: Sequence[str], references: Sequence[Sequence[str]], timeout: float
    ) -> tuple[list[float], float]:
        assert self._process is not None
        counts = []
        for k, (caption, texts) in enumerate(zip(captions, references, strict=True)):
            line = " ||| ".join(["SCORE", *map(plain_text, texts), plain_text(caption)])
            try:
                (answer,) = self._process.ask(line, timeout)
            except ChildError as error:
                raise ChildError(f"{error} (at caption {k + 1}: {caption[:60]!r})") from error
            counts.append(self._checked(answer))
        line = " ||| ".join(["EVAL", *counts])
        answers = self._process.ask(line, timeout + 0.01 * len(counts), len(counts) + 1)
        *scores, corpus = [float(self._checked(answer)) for answer in answers]
        return scores, corpus

    def _checked(self, answer: str) -> str:
        """An answer that consists of numbers; any other ends the process, which is out of sync."""
        if not re.fullmatch(r"[-+.\dEe ]+", answer.strip()):
            self.close()
            raise ChildError(f"it answered {answer.strip()[:200]!r} instead of numbers")
        return answer.strip()

    def close(self) -> None:
        """Stop the Java process; the next call starts a new one."""
        if self._process is not None:
            self._process.close()
        self._process = None
