"""A trial's record as Optuna's user attributes and objective values."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from optuna.trial import TrialState

from mmq.analysis.fronts import Cost, SizeAxis
from mmq.record import TrialRecord
from mmq.studies.objectives import Objective, value_of

SIZE_NAMES: Mapping[SizeAxis, str] = {"stored": "stored_bpw", "nominal": "bpw"}


def trial_attributes(
    record: TrialRecord, objective: Objective, cost: Cost | None = None
) -> dict[str, Any]:
    """The user attributes of a recorded trial; a pruned one has a partial score.

    cost: on the target of the search.
    """
    score, size = value_of(record, objective), record.size
    attributes = {
        "allocation": str(record.allocation),
        "run_id": record.run_id,
        "bpw": size.bpw,
        "stored_bpw": size.stored_bpw,
    }
    if cost is not None:
        attributes["cost"] = asdict(cost)
    if record.pruned is not None:
        return attributes | {"partial": {"score": score.value, "samples": score.n}}
    if record.tasks:
        attributes["tasks"] = [asdict(task) for task in record.tasks]
    if record.flips is not None:
        attributes["flips"] = list(record.flips)
    if objective != "score":
        attributes["task_score"] = [record.primary, record.score.value]
    return attributes | {"low": score.low, "high": score.high}


def objectives(
    record: TrialRecord, axis: SizeAxis, objective: Objective, cost: Cost | None = None
) -> list[float]:
    """What is minimized and maximized: size on this axis, or the cost on a target, and score."""
    size = getattr(record.size, SIZE_NAMES[axis]) if cost is None else cost.value
    return [size, value_of(record, objective).value]


def outcome(
    record: TrialRecord, axis: SizeAxis, objective: Objective, cost: Cost | None = None
) -> tuple[TrialState, list[float]]:
    """A trial's final state and values, which a pruned trial and an undefined score have not."""
    if record.pruned is not None:
        return TrialState.PRUNED, []
    values = objectives(record, axis, objective, cost)
    if any(map(math.isnan, values)):
        return TrialState.FAIL, []
    return TrialState.COMPLETE, values
