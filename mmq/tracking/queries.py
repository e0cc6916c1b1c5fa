"""Results in the tracking store: trials found, read, and gathered by what they answer."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.analysis.fronts import Point
from mmq.errors import InputError, unknown
from mmq.tracking.connection import connect
from mmq.tracking.contact import contacting, explained, open_client
from mmq.tracking.launched import experiment_name
from mmq.tracking.offline import unreachable

log = logging.getLogger(__name__)
PAGE = 1000
THREADS = 8
TRIALS = "tags.`mmq.kind` = 'trial' and attributes.status = 'FINISHED'"
NAMES = ("quantizer.name", "evaluator.name", "model.name", "data.name", "run.seed")
# what an unquantized model's score depends on; quantizers share it
SHARED = ("model.fingerprint", "model.dtype", "data.fingerprint", "run.seed", "evaluator.")


@dataclass(frozen=True, slots=True)
class LoggedTrial:
    """A finished trial. recorded_by: the run that has its predictions."""

    run_id: str
    study: str
    allocation: BitAllocation
    score: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    recorded_by: str
    imported: bool


@dataclass(slots=True)
class Answers:
    """All trials that answer one question. samples: by run, where they are asked for and known."""

    question: str
    trials: list[LoggedTrial]
    name: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pictures: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def params(self) -> Mapping[str, str]:
        """The first trial's params: bits aside, all have the same."""
        return self.trials[0].params

    def points(self, score: str) -> list[Point]:
        """Trials on the plane of size and this metric; those without a size are left out."""
        return [
            Point(
                allocation=str(trial.allocation),
                bpw=trial.metrics["bpw"],
                score=trial.score,
                low=trial.metrics.get(f"{score}_low"),
                high=trial.metrics.get(f"{score}_high"),
                stored_bpw=trial.metrics.get("stored_bpw"),
                run_id=trial.run_id,
            )
            for trial in self.trials
            if trial.score is not None and "bpw" in trial.metrics
        ]

    def rows(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Parts, and a row a trial: bits by part, "score".

        Where trials do not name the same parts, or a part has several widths, all have the finest.
        """
        components = list(dict.fromkeys(c for t in self.trials for c in t.allocation.components))
        named = [
            {k.removeprefix("bits."): v for k, v in t.params.items() if k.startswith("bits.")}
            for t in self.trials
        ]
        parts = list(dict.fromkeys(n for t in self.trials for n, _ in t.allocation.bits))
        same = all(set(each) == set(named[0]) for each in named)
        if same and all(value.isdecimal() for each in named for value in each.values()):
            parts = sorted(named[0], key=lambda n: parts.index(n) if n in parts else len(parts))
            widths: list[dict[str, int]] = [{k: int(v) for k, v in e.items()} for e in named]
        else:
            widths = [
                {".".join(part): bits for part, bits in t.allocation.widths(components).items()}
                for t in self.trials
            ]
            parts = list(widths[0])
        rows = [{**w, "score": t.score} for w, t in zip(widths, self.trials, strict=True)]
        return parts, rows


def all_runs(client: MlflowClient, experiment_ids: Sequence[str], query: str) -> Iterator[Any]:
    """Every run that a filter finds, page by page."""
    token = None
    while True:
        page = client.search_runs(list(experiment_ids), query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def quoted(name: str) -> str:
    """A name that may stand in a filter; InputError where it holds a quote."""
    if "'" in name or "`" in name:
        raise InputError(f"{name!r} holds a quote, which no filter of MLflow can ask for")
    return name


def find_answers(
    experiment: str, studies: Sequence[str] = (), query: str = "", score: str = "score"
) -> tuple[list[Answers], dict[str, str]]:
    """Finished trials by question, and the parent runs of their studies as links.

    studies: all of the experiment if empty. query: an MLflow filter beside that. score: a metric;
    trials without it have None. InputError where a study is unknown or nothing is found.
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
    filters = [f"{TRIALS} and tags.`mmq.study` = '{quoted(s)}'" for s in studies] or [TRIALS]
    found: dict[str, Answers] = {}
    try:
        for text in filters:
            for run in all_runs(client, [experiment_id], f"{text} and {query}" if query else text):
                question = str(run.data.tags.get("mmq.eval_spec", ""))
                answers = found.setdefault(question, Answers(question, []))
                answers.trials.append(_trial(run, score))
    except MlflowException as error:
        if unreachable(error):
            raise InputError(explained(error)) from error
        raise InputError(f"filter: {query!r} is none of MLflow's: {error.message}") from error
    if not found:
        where = f"studies {', '.join(studies)}" if studies else f"experiment {experiment!r}"
        raise InputError(
            f"no finished trials in {where}{f' with {query}' if query else ''}; studies there: "
            f"{', '.join(sorted(parents)) or 'none'}"
        )
    every = list(found.values())
    if all(trial.score is None for each in every for trial in each.trials):
        raise InputError(f"score: no trial found has the metric {score!r}")
    for each in every:
        each.trials = _once(each.trials)
    _share_unquantized(every)
    _name(every)
    used = {trial.study for each in every for trial in each.trials}
    links = {
        name: f"#/experiments/{experiment_id}/runs/{run_id}"
        for name, run_id in parents.items()
        if name in used
    }
    return every, links


def _existing(asked: str) -> str:
    """The name of an experiment to read from; InputError where it is not there."""
    client = open_client()
    with contacting():
        name = experiment_name(client, asked)
        if client.get_experiment_by_name(name) is None:
            known = [each.name for each in client.search_experiments()]
            raise unknown("experiment", name, known)
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
    )


def _once(trials: Iterable[LoggedTrial]) -> list[LoggedTrial]:
    """Without the copies of a trial that several studies asked for."""
    return list({trial.recorded_by: trial for trial in trials}.values())


def _share_unquantized(every: Sequence[Answers]) -> None:
    """A study of several quantizers has the unquantized model once: all of them get it."""

    def key(params: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((k, v) for k, v in params.items() if k.startswith(SHARED)))

    def unquantized(trial: LoggedTrial) -> bool:
        return all(bits == UNQUANTIZED for _, bits in trial.allocation.bits)

    known = {
        key(t.params): t
        for each in every
        for t in each.trials
        if unquantized(t) and "model.fingerprint" in t.params
    }
    for each in every:
        if not any(map(unquantized, each.trials)) and key(each.params) in known:
            each.trials.append(known[key(each.params)])


def _name(every: Sequence[Answers]) -> None:
    """Names that say what differs: quantizer, task, model; else the study; else a number."""
    telling = [n for n in NAMES if len({each.params.get(n, "") for each in every}) > 1]
    if not telling:
        telling = [n for n in NAMES[:1] if n in every[0].params]
    for each in every:
        each.name = " ".join(each.params[n] for n in telling if each.params.get(n))
    names = [each.name for each in every]
    for each in every:
        if not each.name or names.count(each.name) > 1:
            each.name = f"{each.name} {each.trials[0].study}".strip()
    names = [each.name for each in every]
    for number, each in enumerate(every, start=1):
        if names.count(each.name) > 1:
            each.name = f"{each.name} #{number}"


# --- samples -------------------------------------------------------------------------------------
