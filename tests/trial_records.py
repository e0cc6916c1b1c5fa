"""Eval specs and records of made-up trials."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.contracts import Metric
from mmq.eval_spec import EvalSpec
from mmq.models.size import Size
from mmq.record import TrialRecord, TrialSpec

DEFAULTS = {str: "x", int: 1, bool: False, Mapping[str, Any]: {}, Mapping[str, int]: {}}


def eval_spec(**values):
    """An eval spec with made-up values, but for those given."""
    made_up = {field.name: DEFAULTS[field.type] for field in fields(EvalSpec)}
    made_up |= dict.fromkeys(("dataset", "fields", "calibration_data"), "")
    return EvalSpec(**(made_up | values))


def record_of(allocation="vit=4 llm=3", score=95.0, name="vqa/accuracy", **values):
    """The record of an allocation (text or object) with two samples, but for the values given."""
    if isinstance(allocation, str):
        allocation = BitAllocation.parse(allocation)
    known = {
        "spec": TrialSpec(eval_spec(samples=2), allocation),
        "size": Size(10, 4.0, 4.5),
        "primary": name,
        "metrics": {name: Metric(score, 2, score - 1, score + 1)},
        "per_sample": {name: (score, score)},
        "layer_errors": {"relative_error": 0.1, "output_error": None},
        "seconds": {"quantize": 1.0, "evaluate": 2.0},
    }
    return TrialRecord(**(known | values))
