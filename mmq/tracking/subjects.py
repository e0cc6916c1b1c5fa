"""What logged trials evaluate, in words: titles and axes of figures, names of runs."""

from collections.abc import Mapping, Sequence

from mmq.allocation.widths_list import brief_text
from mmq.record import TrialSpec
from mmq.task_names import last_part, short_names

BOUNDS = ("_low", "_high")


def subject(params: Sequence[Mapping[str, str]]) -> str:
    """Model, task, data and quantizer of trials by their params; what differs is joined by "/".

    Without what was not logged, as with imported results.
    """

    def joined(name: str) -> str:
        shorten = short_names if name == "data.name" else last_part
        return "/".join(dict.fromkeys(shorten(each[name]) for each in params if each.get(name)))

    data, samples = joined("data.name"), joined("data.samples")
    task = " on ".join(filter(None, (joined("evaluator.name"), data)))
    task += f" ({samples} samples)" if task and samples else ""
    return ", ".join(filter(None, (joined("model.name"), task, joined("quantizer.name"))))


def trial_name(spec: TrialSpec) -> str:
    """Name of a trial's run: its allocation, quantizer and task."""
    allocation = brief_text(str(spec.allocation))
    return f"{allocation}, {spec.eval_spec.quantizer}, {spec.eval_spec.evaluator}"


def score_name(metrics: Sequence[Mapping[str, float]]) -> str:
    """The metric that trials log as their score, too; "score" if it has no name of its own.

    The shortest of several, which are the metric over all samples and over groups of them.
    """
    same = [
        name
        for name in (metrics[0] if metrics else ())
        if "/" in name
        and not name.endswith(BOUNDS)
        and all("score" in each and each.get(name) == each["score"] for each in metrics)
    ]
    return min(same, key=len, default="score")
