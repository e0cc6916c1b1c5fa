"""Scores by type of question."""

from collections.abc import Mapping, Sequence

from mmq.contracts import Metric, QuestionSample
from mmq.evaluation.stats import mean_metric, name_part

MOST_TYPES = 30  # with more types, no type gets a metric of its own


def mean_percentages(
    samples: Sequence[QuestionSample], values: Mapping[str, Sequence[float]]
) -> dict[str, Metric]:
    """The mean over all samples of each metric, in percent, and that of the first by type.

    values: of each sample, by the metric's name.
    """
    primary = next(iter(values))
    groups = {name: list(range(len(samples))) for name in values}
    groups |= _by_type(primary, [sample.answer_type for sample in samples])
    return {
        name: mean_metric(
            [values.get(name, values[primary])[k] for k in indices],
            [samples[k].image_id for k in indices],
            bounds=(0, 100),
        )
        for name, indices in groups.items()
    }


def _by_type(name: str, types: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each type's samples, by the name of its metric; {} if there are many."""
    kinds = sorted({*types} - {""})
    if len(kinds) > MOST_TYPES:
        return {}
    return {
        f"{name}_{name_part(kind)}": [k for k, other in enumerate(types) if other == kind]
        for kind in kinds
    }
