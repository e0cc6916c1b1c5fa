"""Trials in the tracking store, grouped by what they evaluate."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.analysis.fronts import AGREEMENT, Point, TaskScore
from mmq.analysis.joint import Combine, parse_combine
from mmq.analysis.measured import PREFIX
from mmq.errors import InputError, unknown
from mmq.evaluation.flips import FLIPS
from mmq.record import SHARE
from mmq.task_names import has_several, parse_tasks
from mmq.tracking.connection import connect
from mmq.tracking.contact import contacting, explained, open_client
from mmq.tracking.launched import experiment_name
from mmq.tracking.mlflow_ui import run_page
from mmq.tracking.offline import unreachable

log = logging.getLogger(__name__)
PAGE = 1000
THREADS = 8
TRIALS = "tags.`mmq.kind` = 'trial' and attributes.status = 'FINISHED'"
MEASURED = f"mmq.{PREFIX}."  # tags of a trial by target: the setting of its measurement
NAMES = ("quantizer.name", "evaluator.name", "model.name", "data.name", "run.seed")
# params that an unquantized model's score depends on
SHARED = ("model.fingerprint", "model.dtype", "data.fingerprint", "run.seed", "evaluator.")


@dataclass(frozen=True, slots=True)
class LoggedTrial:
    """A finished trial. recorded_by: the run with its predictions.

    settings: in which its exported models were measured, by target.
    """

    run_id: str
    study: str
    allocation: BitAllocation
    score: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    recorded_by: str
    imported: bool
    settings: Mapping[str, str]

    @property
    def tasks(self) -> tuple[TaskScore, ...]:
        """The scores of each of several tasks; none of one task."""
        values, names = self.metrics, self.params.get("evaluator.name", "")
        labels = parse_tasks(names) if has_several(names) else {}
        return tuple(
            TaskScore(
                label,
                values[f"{label}/score"],
                values.get(f"{label}/score_low"),
                values.get(f"{label}/score_high"),
                values[f"{SHARE}/{label}"],
            )
            for label in labels
            if f"{SHARE}/{label}" in values
        )

    @property
    def flips(self) -> tuple[float, float | None, float | None] | None:
        """Percent of the answers that differ from the unquantized model's, with their interval."""
        values = self.metrics
        if FLIPS not in values:
            return None
        return values[FLIPS], values.get(f"{FLIPS}_low"), values.get(f"{FLIPS}_high")


@dataclass(slots=True)
class StudyTrials:
    """All trials with the same eval spec. samples: scores by run, if they were read.

    task: the one of several tasks whose shares are the scores; "" for all of a study's tasks.
    """

    eval_spec: str
    trials: list[LoggedTrial]
    name: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pictures: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)
    task: str = ""

    @property
    def params(self) -> Mapping[str, str]:
        """The first trial's params; apart from the bits, all trials have the same."""
        return self.trials[0].params

    @property
    def is_joint(self) -> bool:
        """Whether the scores combine those of several tasks."""
        return not self.task and any(trial.tasks for trial in self.trials)

    @property
    def combine(self) -> Combine:
        """How the scores of several tasks are combined."""
        return parse_combine(self.params.get("tasks.combine", "worst"))

    def by_task(self) -> list["StudyTrials"]:
        """One group per task of a study of several, with its shares as scores; none of one."""
        return [
            StudyTrials(
                self.eval_spec,
                [
                    replace(trial, score=task.share)
                    for trial in self.trials
                    for task in trial.tasks
                    if task.label == label
                ],
                f"{self.name} {label}".strip(),
                task=label,
            )
            for label in dict.fromkeys(t.label for trial in self.trials for t in trial.tasks)
        ]

    def points(self, score: str) -> list[Point]:
        """Trials on the plane of size and this metric, without those that have no size."""
        own = score in ("score", AGREEMENT)  # what a study maximizes
        score = f"{SHARE}/{self.task}" if self.task else score
        return [
            Point(
                allocation=str(trial.allocation),
                bpw=trial.metrics["bpw"],
                score=trial.metrics[AGREEMENT] if score == AGREEMENT else trial.score,
                low=trial.metrics.get(f"{score}_low"),
                high=trial.metrics.get(f"{score}_high"),
                stored_bpw=trial.metrics.get("stored_bpw"),
                run_id=trial.run_id,
                tasks=trial.tasks if score == "score" else (),
                flips=trial.flips if own else None,
                objective=AGREEMENT if score == AGREEMENT else "score",
                task_score=("score", trial.score) if score == AGREEMENT else None,
            )
            for trial in self.trials
            if trial.score is not None and "bpw" in trial.metrics
        ]

    def rows(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Names of the parts, and one row per trial: bits by part, and "score".

        The finest parts, if trials name different parts or a part has several widths.
        """
        components = list(dict.fromkeys(c for t in self.trials for c in t.allocation.components))
        by_part = [
            {k.removeprefix("bits."): v for k, v in t.params.items() if k.startswith("bits.")}
            for t in self.trials
        ]
        parts = list(dict.fromkeys(n for t in self.trials for n, _ in t.allocation.bits))
        same = all(set(bits) == set(by_part[0]) for bits in by_part)
        if same and all(value.isdecimal() for bits in by_part for value in bits.values()):
            parts = sorted(by_part[0], key=lambda n: parts.index(n) if n in parts else len(parts))
            widths: list[dict[str, int]] = [{k: int(v) for k, v in b.items()} for b in by_part]
        else:
            widths = [
                {".".join(part): bits for part, bits in t.allocation.widths(components).items()}
                for t in self.trials
            ]
            parts = list(widths[0])
        rows = [{**w, "score": t.score} for w, t in zip(widths, self.trials, strict=True)]
        return parts, rows


def all_runs(client: MlflowClient, experiment_ids: Sequence[str], query: str) -> Iterator[Any]:
    """Every run that matches a filter, page by page."""
    token = None
    while True:
        page = client.search_runs(list(experiment_ids), query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def trial_filter(study: str) -> str:
    """MLflow search filter for the trials of a study, without the parent run."""
    return f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'trial'"


def check_quotes(name: str) -> str:
    """The same name; InputError if it contains a quote, which MLflow's filters cannot escape."""
    if "'" in name or "`" in name:
        raise InputError(f"{name!r} contains a quote, which MLflow cannot search for")
    return name


def find_trials(
    experiment: str, studies: Sequence[str] = (), query: str = "", score: str = "score"
) -> tuple[list[StudyTrials], dict[str, str]]:
    """Finished trials by eval spec, and links to the parent runs of their studies.

    studies: their names; empty for all of the experiment. query: an additional MLflow filter.
    score: a metric; trials without it have None. InputError for an unknown study, or if no trial
    is finished.
    """
    experiment = _existing(experiment)
    client, experiment_id = connect(experiment)
    parents = {
        str(run.data.tags.get("mmq.study")): str(run.info.run_id)
        for run in all_runs(client, [experiment_id], "tags.`mmq.kind` = 'study'")
    }
    for study in studies:
        if study not in parents:
            raise unknown("study", study, parents)
    filters = [f"{TRIALS} and tags.`mmq.study` = '{check_quotes(s)}'" for s in studies] or [TRIALS]
    groups: dict[str, StudyTrials] = {}
    try:
        for text in filters:
            for run in all_runs(client, [experiment_id], f"{text} and {query}" if query else text):
                eval_spec = str(run.data.tags.get("mmq.eval_spec", ""))
                group = groups.setdefault(eval_spec, StudyTrials(eval_spec, []))
                group.trials.append(_trial(run, score))
    except MlflowException as error:
        if unreachable(error):
            raise InputError(explained(error)) from error
        raise InputError(
            f"filter: {query!r} is not a valid MLflow filter: {error.message}"
        ) from error
    if not groups:
        where = f"studies {', '.join(studies)}" if studies else f"experiment {experiment!r}"
        raise InputError(
            f"no finished trials in {where}{f' with {query}' if query else ''}; studies there: "
            f"{', '.join(sorted(parents)) or 'none'}"
        )
    trials = list(groups.values())
    if all(trial.score is None for group in trials for trial in group.trials):
        raise InputError(f"score: no trial has the metric {score!r}")
    for group in trials:
        group.trials = _once(group.trials)
    _share_unquantized(trials)
    _name(trials)
    used = {trial.study for group in trials for trial in group.trials}
    links = {
        name: run_page(experiment_id, run_id) for name, run_id in parents.items() if name in used
    }
    return trials, links


def latest_study(experiment: str) -> str:
    """The study of the trial that started last; InputError if no trial is finished."""
    name = _existing(experiment)
    client, experiment_id = connect(name)
    newest = client.search_runs(
        [experiment_id], TRIALS, max_results=1, order_by=["attributes.start_time DESC"]
    )
    if not newest:
        raise InputError(f"no finished trials in experiment {name!r}; run a study first")
    return str(newest[0].data.tags["mmq.study"])


def _existing(experiment: str) -> str:
    """The name of an experiment to read from; InputError if it does not exist."""
    client = open_client()
    with contacting():
        name = experiment_name(client, experiment)
        if client.get_experiment_by_name(name) is None:
            names = [experiment.name for experiment in client.search_experiments()]
            raise unknown("experiment", name, names)
    return name


def _trial(run: Any, score: str) -> LoggedTrial:
    tags = run.data.tags
    value = run.data.metrics.get(score)
    return LoggedTrial(
        run_id=str(run.info.run_id),
        study=str(tags.get("mmq.study", "")),
        allocation=BitAllocation.parse(tags["mmq.allocation"]),
        score=None if value is None else float(value),
        metrics=run.data.metrics,
        params=run.data.params,
        recorded_by=str(tags.get("mmq.recorded_by", run.info.run_id)),
        imported="mmq.imported" in tags,
        settings={k.removeprefix(MEASURED): v for k, v in tags.items() if k.startswith(MEASURED)},
    )


def _once(trials: Iterable[LoggedTrial]) -> list[LoggedTrial]:
    """The trials without copies in several studies."""
    return list({trial.recorded_by: trial for trial in trials}.values())


def _share_unquantized(groups: Sequence[StudyTrials]) -> None:
    """Add the unquantized model, which a study of several quantizers has once, to all of them."""

    def key(params: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((k, v) for k, v in params.items() if k.startswith(SHARED)))

    def unquantized(trial: LoggedTrial) -> bool:
        return all(bits == UNQUANTIZED for _, bits in trial.allocation.bits)

    baselines = {
        key(t.params): t
        for group in groups
        for t in group.trials
        if unquantized(t) and "model.fingerprint" in t.params
    }
    for group in groups:
        if not any(map(unquantized, group.trials)) and key(group.params) in baselines:
            group.trials.append(baselines[key(group.params)])


def _name(groups: Sequence[StudyTrials]) -> None:
    """Name groups after what differs: quantizer, task, model; else the study; else a number."""
    differing = [n for n in NAMES if len({group.params.get(n, "") for group in groups}) > 1]
    if not differing:
        differing = [n for n in NAMES[:1] if n in groups[0].params]
    for group in groups:
        group.name = " ".join(group.params[n] for n in differing if group.params.get(n))
    names = [group.name for group in groups]
    for group in groups:
        if not group.name or names.count(group.name) > 1:
            group.name = f"{group.name} {group.trials[0].study}".strip()
    names = [group.name for group in groups]
    for number, group in enumerate(groups, start=1):
        if names.count(group.name) > 1:
            group.name = f"{group.name} #{number}"
