"""What a trial is asked and what it found."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.contracts import Evaluation, QuantReport
from mmq.eval_spec import EvalSpec as EvalSpec
from mmq.models.size import Size


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One allocation within a question."""

    question: EvalSpec
    allocation: BitAllocation


@dataclass(frozen=True, slots=True)
class Pruned:
    """Why a trial was stopped: what its rival is ahead by, on the samples seen and at least."""

    samples: int
    of: int
    rival: str
    smaller: bool  # False: the rival has the same size
    better_by: float
    at_least: float

    def __str__(self) -> str:
        size = "smaller" if self.smaller else "as small"
        return (
            f"stopped after {self.samples} of {self.of} samples: {self.rival} is {size} and "
            f"better by {self.better_by:.3g} (at least {self.at_least:.3g})"
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """All that a trial found."""

    spec: TrialSpec
    evaluation: Evaluation
    report: QuantReport
    size: Size
    seconds: Mapping[str, float]  # by stage: quantize, evaluate
    pruned: Pruned | None = None  # not None: lost its race, evaluated on a part of the samples

    def to_json(self) -> dict[str, Any]:
        """Plain data for record.json; predictions and layers go to files of their own."""
        return {
            "question": dataclasses.asdict(self.spec.question),
            "allocation": self.spec.allocation.as_dict(),
            "size": dataclasses.asdict(self.size)
            | {"gib": self.size.gib, "stored_gib": self.size.stored_gib},
            "primary": self.evaluation.primary,
            "metrics": {k: dataclasses.asdict(m) for k, m in self.evaluation.metrics.items()},
            "per_sample": {
                k: [float(x) for x in v] for k, v in self.evaluation.per_sample.items()
            },
            "errors": self.report.mean_errors(),
            "seconds": dict(self.seconds),
            **({"undefined": dict(undefined)} if (undefined := self.evaluation.undefined) else {}),
        } | ({"pruned": dataclasses.asdict(self.pruned)} if self.pruned else {})
