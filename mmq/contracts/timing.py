"""An engine's facts about itself, and the time of one answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """The software that computes the answers.

    process: the id of its process. threads: 0 if unknown.
    """

    name: str
    version: str
    threads: int
    process: int

    def __str__(self) -> str:
        words = [f"{self.name} {self.version}".strip()]
        if self.threads:
            words.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class AnswerTiming:
    """The time that one answer took, in seconds.

    first_token: from the request to the first generated token. decoding: from the first token to
    the last. vision: in the vision encoder, a part of first_token; None if unknown.
    """

    seconds: float
    tokens: int
    first_token: float
    decoding: float
    vision: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of decoding; None for a single token, which has no next one."""
        if self.tokens < 2 or self.decoding <= 0:
            return None
        return (self.tokens - 1) / self.decoding
