"""The specification and result of a trial: the one record that everything else reads.

    TrialSpec -> run_trial -> TrialResult = TrialRecord + TrialDetails

A record is small: it is saved on disk and in MLflow, and read by the search and the analysis. The
details (a report per layer, an output per sample) are logged once, as files.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import TaskScore
from mmq.contracts import Evaluation, LayerReport, Metric, Prediction, QuantReport
from mmq.eval_spec import EvalSpec as EvalSpec
from mmq.eval_spec import JointSpec, spec_from_json
from mmq.evaluation.flips import FLIPS
from mmq.models.size import Size
from mmq.system.sealed import Damaged, Unusable

SHARE = "kept"  # metrics of several tasks: the shares of the unquantized scores, in percent
SCHEMA = 2  # of record.json; raise it with every change of the fields below


class OtherSchema(Unusable):
    """A record written by another version of mmq."""


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """What one trial evaluates: an allocation within an eval spec."""

    eval_spec: EvalSpec
    allocation: BitAllocation


@dataclass(frozen=True, slots=True)
class Pruned:
    """Why a trial was stopped: how far its rival leads, as measured and at least."""

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
class TrialDetails:
    """Details of a trial besides its record: one report per layer, one prediction per sample.

    observations: counts by metric name, such as answers whose logits were not finite.
    """

    layers: tuple[LayerReport, ...]
    predictions: tuple[Prediction, ...]
    observations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """The result of a trial. `TrialRecord.from_json(record.to_json())` equals the record.

    primary: name of the metric that a search maximizes. per_sample: one value per sample for every
    metric that has them. layer_errors: means over the layers. seconds: by stage. undefined: why a
    metric has no score. pruned: set if the trial was stopped after a part of its samples. run_id:
    of the MLflow run with its log.
    """

    spec: TrialSpec
    size: Size
    primary: str
    metrics: Mapping[str, Metric]
    per_sample: Mapping[str, tuple[float, ...]]
    layer_errors: Mapping[str, float | None]
    seconds: Mapping[str, float]
    undefined: Mapping[str, str] = field(default_factory=dict)
    pruned: Pruned | None = None
    run_id: str = ""

    def __post_init__(self) -> None:
        if self.primary not in self.metrics:
            raise ValueError(f"primary: {self.primary!r} is not one of {sorted(self.metrics)}")

    @property
    def allocation(self) -> BitAllocation:
        """The bits of each part."""
        return self.spec.allocation

    @property
    def score(self) -> Metric:
        """The metric that a search maximizes."""
        return self.metrics[self.primary]

    @property
    def sample_scores(self) -> Sequence[float] | None:
        """The score of every sample; None if the metric has none."""
        return self.per_sample.get(self.primary)

    @property
    def tasks(self) -> tuple[TaskScore, ...]:
        """The scores of a trial of several tasks, as far as the unquantized ones are known."""
        spec = self.spec.eval_spec
        if not isinstance(spec, JointSpec):
            return ()
        return tuple(
            TaskScore(label, score.value, score.low, score.high, self.metrics[share].value)
            for label in spec.tasks
            if (share := f"{SHARE}/{label}") in self.metrics
            and (score := self.metrics[f"{label}/score"])
        )

    @property
    def flips(self) -> tuple[float, float | None, float | None] | None:
        """Percent of the answers that differ from the unquantized model's, with their interval."""
        metric = self.metrics.get(FLIPS)
        return None if metric is None else (metric.value, metric.low, metric.high)

    def in_run(self, run_id: str) -> "TrialRecord":
        """A copy of the record for this MLflow run."""
        return dataclasses.replace(self, run_id=run_id)

    def to_json(self) -> dict[str, Any]:
        """Plain data for record.json."""
        size = dataclasses.asdict(self.size)
        return {
            "schema": SCHEMA,
            "eval_spec": dataclasses.asdict(self.spec.eval_spec),
            "allocation": self.spec.allocation.as_dict(),
            "size": size | {"gib": self.size.gib, "stored_gib": self.size.stored_gib},
            "primary": self.primary,
            "metrics": {name: dataclasses.asdict(m) for name, m in self.metrics.items()},
            "per_sample": {name: list(values) for name, values in self.per_sample.items()},
            "layer_errors": dict(self.layer_errors),
            "seconds": dict(self.seconds),
            "undefined": dict(self.undefined),
            "pruned": None if self.pruned is None else dataclasses.asdict(self.pruned),
            "run_id": self.run_id,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrialRecord":
        """The record that `to_json` wrote.

        OtherSchema for a record of another version, Damaged for an incomplete one.
        """
        if (schema := data.get("schema")) != SCHEMA:
            age = "a newer" if isinstance(schema, int) and schema > SCHEMA else "an earlier"
            raise OtherSchema(
                f"{age} version of mmq wrote it, with schema {schema}; this version reads {SCHEMA}"
            )
        try:
            size, pruned = data["size"], data["pruned"]
            return cls(
                spec=TrialSpec(
                    spec_from_json(data["eval_spec"]), BitAllocation.of(data["allocation"])
                ),
                size=Size(size["parameters"], size["bpw"], size["stored_bpw"], size.get("reach")),
                primary=data["primary"],
                metrics={name: Metric(**entry) for name, entry in data["metrics"].items()},
                per_sample={name: tuple(entry) for name, entry in data["per_sample"].items()},
                layer_errors=data["layer_errors"],
                seconds=data["seconds"],
                undefined=data["undefined"],
                pruned=None if pruned is None else Pruned(**pruned),
                run_id=data["run_id"],
            )
        except (LookupError, TypeError, ValueError) as error:
            raise Damaged(f"it is incomplete or invalid ({error!r})") from error


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial's record and its details."""

    record: TrialRecord
    details: TrialDetails

    @classmethod
    def of(
        cls,
        spec: TrialSpec,
        evaluation: Evaluation,
        report: QuantReport,
        size: Size,
        seconds: Mapping[str, float],
        pruned: Pruned | None = None,
        observations: Mapping[str, int] = MappingProxyType({}),
    ) -> "TrialResult":
        """Build it from an evaluation and the layers' report."""
        record = TrialRecord(
            spec=spec,
            size=size,
            primary=evaluation.primary,
            metrics=dict(evaluation.metrics),
            per_sample={k: tuple(map(float, v)) for k, v in evaluation.per_sample.items()},
            layer_errors=report.mean_errors(),
            seconds=dict(seconds),
            undefined=dict(evaluation.undefined),
            pruned=pruned,
        )
        predictions = tuple(evaluation.predictions)
        return cls(record, TrialDetails(report.layers, predictions, dict(observations)))
