"""Scores by type of question."""

from collections.abc import Sequence

from mmq.evaluation.stats import name_part

MOST_TYPES = 30  # that get a metric each


def by_type(name: str, types: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each type's samples, by the name of its metric; {} if there are many."""
    kinds = sorted({*types} - {""})
    if len(kinds) > MOST_TYPES:
        return {}
    return {
        f"{name}_{name_part(kind)}": [k for k, given in enumerate(types) if given == kind]
        for kind in kinds
    }
