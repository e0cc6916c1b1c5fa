"""A run's metrics: scores with their intervals, sizes, errors and seconds."""

from collections.abc import Mapping

from mmq.contracts import Metric as Score
from mmq.record import TrialRecord


def trial_metrics(record: TrialRecord) -> dict[str, float]:
    """A trial's metrics from its record; those of a pruned one are named partial/*."""
    prefix = "" if record.pruned is None else "partial/"
    values: dict[str, float | None] = {
        "bpw": record.size.bpw,
        "stored_bpw": record.size.stored_bpw,
        "size_gib": record.size.gib,
        "stored_gib": record.size.stored_gib,
        "reach": record.size.reach,
    }
    scores = score_metrics(record.primary, record.metrics)
    values |= {prefix + name: value for name, value in scores.items()}
    values |= record.layer_errors
    values |= {f"seconds/{stage}": seconds for stage, seconds in record.seconds.items()}
    return _rounded(values)


def score_metrics(primary: str, metrics: Mapping[str, Score]) -> dict[str, float]:
    """Scores and the bounds of their intervals by metric name; the primary one is `score`, too."""
    values: dict[str, float | None] = {}
    for name, metric in {"score": metrics[primary], **metrics}.items():
        values |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    return _rounded(values)


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items() if value is not None}
