"""A trial's record as Optuna's user attributes and objective values."""

from collections.abc import Mapping
from typing import Any

from mmq.analysis.fronts import SizeAxis
from mmq.record import TrialRecord

SIZE_NAMES: Mapping[SizeAxis, str] = {"stored": "stored_bpw", "nominal": "bpw"}


def trial_attributes(record: TrialRecord) -> dict[str, Any]:
    """The user attributes of a recorded trial; a pruned one has a partial score."""
    score, size = record.score, record.size
    attributes = {
        "allocation": str(record.allocation),
        "run_id": record.run_id,
        "bpw": size.bpw,
        "stored_bpw": size.stored_bpw,
    }
    if record.pruned is not None:
        return attributes | {"partial": {"score": score.value, "samples": score.n}}
    return attributes | {"low": score.low, "high": score.high}


def objectives(record: TrialRecord, axis: SizeAxis) -> list[float]:
    """Size on this axis, to be minimized, and score, to be maximized."""
    return [getattr(record.size, SIZE_NAMES[axis]), record.score.value]
