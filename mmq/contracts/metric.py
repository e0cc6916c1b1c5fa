"""A score with its interval."""

import re
from dataclasses import dataclass

METRIC_NAME = re.compile(r"[\w./ -]+", re.ASCII)  # the characters that MLflow's stores accept


@dataclass(frozen=True, slots=True)
class Metric:
    """A score over n samples with its 95% interval; None if no interval is valid."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):  # numpy numbers are not JSON serializable
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else float(number))

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"{self.value:.4g}{interval}"
