"""A study that was logged to MLflow, read as an object."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import AGREEMENT
from mmq.analysis.joint import JointSamples, parse_combine
from mmq.errors import InputError
from mmq.record import SHARE, TrialRecord
from mmq.studies.front import Results
from mmq.studies.objectives import name_of, samples_of
from mmq.studies.study import Study
from mmq.system.environment import set_up_environment

if TYPE_CHECKING:
    from mmq.tracking.queries import StudyTrials


def load_study(name: str, experiment: str = "", quantizer: str = "") -> Study:
    """A study that was logged to MLflow, whichever command ran it; InputError for another name.

    quantizer: which one, if the study (a comparison or curves) has several.
    """
    from mmq.tracking import fetch_record, find_study, server_address
    from mmq.tracking.queries import find_trials
    from mmq.tracking.sample_scores import read_samples

    set_up_environment()
    groups, links = find_trials(experiment, [name])
    group = _one(groups, name, quantizer)
    tasks = group.by_task()
    read_samples([group, *tasks], quiet=True)
    runs = {str(trial.allocation): trial for trial in group.trials}
    of_flips = all(AGREEMENT in trial.metrics for trial in group.trials)

    @cache
    def read(allocation: str) -> TrialRecord | None:
        return None if runs[allocation].imported else fetch_record(runs[allocation].run_id)

    def sample_scores(allocation: str) -> Sequence[float] | None:
        if of_flips:
            record = read(allocation)
            return None if record is None else samples_of(record, "flips")
        return group.samples.get(runs[allocation].run_id)

    first = next((record for record in map(read, runs) if record is not None), None)
    score_name = "score" if first is None else name_of(first, "flips" if of_flips else "score")
    run_ids = {allocation: trial.run_id for allocation, trial in runs.items()}
    results = Results(
        name,
        score_name,
        group.points(AGREEMENT if of_flips else "score"),
        sample_scores,
        group.pictures or [],
        Budget(of_flips=of_flips),
        parameters=0 if first is None else first.size.parameters,
        joint=_joint(tasks, run_ids, score_name.removeprefix(f"{SHARE}/")),
    )
    parent = find_study(experiment, name)
    url = f"{server_address()}/{links[name]}"
    return Study(results, read, "" if parent is None else parent[1], url, url)


def _one(groups: Sequence["StudyTrials"], name: str, quantizer: str) -> "StudyTrials":
    """The trials of this quantizer; InputError if there are several, and not this one."""
    by_quantizer = {group.params.get("quantizer.name", ""): group for group in groups}
    if len(groups) > 1 and quantizer not in by_quantizer:
        raise InputError(
            f"quantizer: study {name!r} has several; choose from {', '.join(sorted(by_quantizer))}"
        )
    return by_quantizer[quantizer] if len(groups) > 1 else groups[0]


def _joint(
    tasks: Sequence["StudyTrials"], runs: Mapping[str, str], combine: str
) -> JointSamples | None:
    """The samples of several tasks; None of one, and if those of a task are unknown."""
    if not tasks or any(not task.samples or task.pictures is None for task in tasks):
        return None

    def task_samples(allocation: str) -> Mapping[str, Sequence[float]] | None:
        values = {task.task: task.samples.get(runs[allocation]) for task in tasks}
        return {k: v for k, v in values.items() if v is not None}

    pictures = {task.task: task.pictures or [] for task in tasks}
    return JointSamples(pictures, task_samples, parse_combine(combine))
