"""A trial's record as Optuna's user attributes and objective values."""

from collections.abc import Mapping
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import SizeAxis

SIZE_NAMES: Mapping[SizeAxis, str] = {"stored": "stored_bpw", "nominal": "bpw"}


def trial_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The user attributes of a recorded trial; a pruned one has a partial score."""
    score, size = record["metrics"][record["primary"]], record["size"]
    facts = {
        "allocation": str(BitAllocation.of(record["allocation"])),
        "run_id": record["run_id"],
        "bpw": size["bpw"],
        "stored_bpw": size["stored_bpw"],
    }
    if "pruned" in record:
        return facts | {"partial": {"score": score["value"], "samples": score["n"]}}
    return facts | {"low": score["low"], "high": score["high"]}


def objectives(record: Mapping[str, Any], axis: SizeAxis) -> list[float]:
    """Size on this axis, to be minimized, and score, to be maximized."""
    return [record["size"][SIZE_NAMES[axis]], record["metrics"][record["primary"]]["value"]]
