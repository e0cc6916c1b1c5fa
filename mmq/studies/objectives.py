"""What a search maximizes: a trial's score, or its agreement with the unquantized model."""

from collections.abc import Sequence
from typing import Literal

from mmq.analysis.fronts import AGREEMENT
from mmq.contracts import Metric
from mmq.contracts.evaluator import RankingEvaluator
from mmq.errors import InputError, one_of
from mmq.evaluation.flips import FLIPS
from mmq.prepare import Prepared
from mmq.record import TrialRecord
from mmq.studies.joint_tasks import JointPrepared
from mmq.studies.study import point_of

Objective = Literal["score", "flips"]
OBJECTIVES: tuple[Objective, ...] = ("score", "flips")
ALL = 100.0  # percent: the unquantized model agrees with itself


def parse_objective(text: str) -> Objective:
    """The objective of this name; InputError for another name."""
    return one_of("objective", text, OBJECTIVES)


def check_objective(objective: Objective, prepared: Prepared) -> None:
    """InputError for flips of tasks that have none, or no common ones."""
    if objective == "score":
        return
    if isinstance(prepared, JointPrepared):
        raise InputError(
            "objective: flips are compared on one task; several tasks are combined by the shares "
            "of their scores. Search one of them, or bound the flips of all with --max-flips 2%"
        )
    if isinstance(prepared.evaluator, RankingEvaluator):
        raise InputError(
            f"objective: the task {prepared.evaluator.task} ranks pictures and texts, so no "
            f"answers can flip; use --objective score"
        )


def bounds_of(objective: Objective, prepared: Prepared) -> tuple[float, float] | None:
    """The lowest and the highest possible value, if known."""
    return prepared.bounds if objective == "score" else (0.0, ALL)


def name_of(record: TrialRecord, objective: Objective) -> str:
    """The name of the metric."""
    return record.primary if objective == "score" else AGREEMENT


def has_value(record: TrialRecord, objective: Objective) -> bool:
    """Whether a record has what is maximized; one of another study may lack flips."""
    return objective == "score" or FLIPS in record.metrics or point_of(record).is_unquantized


def value_of(record: TrialRecord, objective: Objective) -> Metric:
    """What a search maximizes: the score, or the percentage of unchanged answers.

    InputError for a record without flips.
    """
    if objective == "score":
        return record.score
    if point_of(record).is_unquantized:
        return Metric(ALL, record.score.n)
    if (flips := record.metrics.get(FLIPS)) is None:
        raise InputError(
            f"objective: {record.allocation} has no flips; its answers were not compared with the "
            f"unquantized model's"
        )
    low, high = (None if end is None else ALL - end for end in (flips.high, flips.low))
    return Metric(ALL - flips.value, flips.n, low, high)


def samples_of(record: TrialRecord, objective: Objective) -> Sequence[float] | None:
    """The value of every sample; None if the metric has none."""
    if objective == "score":
        return record.sample_scores
    if point_of(record).is_unquantized:
        return [1.0] * record.score.n
    flips = record.per_sample.get(FLIPS)
    return None if flips is None else [1.0 - value for value in flips]


def agreement_metrics(record: TrialRecord) -> dict[str, float]:
    """The agreement with its interval, as metrics of a trial's run."""
    value = value_of(record, "flips")
    ends = {"": value.value, "_low": value.low, "_high": value.high}
    return {f"{AGREEMENT}{k}": round(v, 6) for k, v in ends.items() if v is not None}
