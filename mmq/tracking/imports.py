"""Imported results as a study: a parent run with one nested run per row, without duplicates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmq.analysis.results_file import ResultRow, ResultTable
from mmq.errors import InputError
from mmq.system.hashing import digest
from mmq.tracking.connection import connect
from mmq.tracking.finished_runs import FinishedRun, log_finished
from mmq.tracking.mlflow_ui import front_tags
from mmq.tracking.params import width_params
from mmq.tracking.queries import all_runs, check_quotes, trial_filter
from mmq.tracking.runs import user
from mmq.tracking.studies import StudyRun, find_study, open_study

IMPORTED = "mmq.imported"  # tag of runs whose scores come from a file
CONTENT = "mmq.content"  # tag of a study with the hash of all rows of its last import
ROW = "mmq.row"  # tag with the hash of a row's content


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: how many rows were new, and all rows of the file with their runs."""

    new: int
    duplicates: int
    rows: Sequence[tuple[ResultRow, str]]


def check_study(experiment: str, study: str, facts: Mapping[str, str]) -> tuple[str, str] | None:
    """The study's parent run, as `find_study` returns it.

    InputError if it has trials that mmq ran, or results of another eval spec.
    """
    parent = find_study(experiment, study)
    if parent is None:
        return None
    client, _ = connect(experiment)
    tags = client.get_run(parent[1]).data.tags
    if IMPORTED not in tags:
        raise InputError(
            f"study: {study!r} has trials that mmq ran; choose another --study for imported "
            f"results"
        )
    if tags.get("mmq.eval_spec") != question_key(facts):
        raise InputError(
            f"study: {study!r} has results of another model, task, data or quantizer; give the "
            f"same names again, or choose another --study"
        )
    return parent


def content_key(table: ResultTable, facts: Mapping[str, str]) -> str:
    """A hash of the rows, in any order, and of their eval spec."""
    return digest([question_key(facts), sorted({row.key for row in table.rows})])


def study_with(experiment: str, content: str) -> str | None:
    """Name of the study that was imported from exactly these rows, if there is one."""
    client, experiment_id = connect(experiment)
    query = f"tags.`{CONTENT}` = '{content}' and tags.`mmq.kind` = 'study'"
    runs = client.search_runs([experiment_id], query, max_results=1)
    return str(runs[0].data.tags["mmq.study"]) if runs else None


def question_key(facts: Mapping[str, str]) -> str:
    """A hash of the names of model, task, data and quantizer."""
    return digest(["imported", dict(facts)])


def open_import(experiment: str, study: str, facts: Mapping[str, str]) -> StudyRun:
    """The study's parent run, created if missing. facts: params such as model.name."""
    parent = check_study(experiment, study, facts)
    run = open_study(experiment, study, parent, f"imported {study}")
    tags = {IMPORTED: "true", "mmq.eval_spec": question_key(facts)}
    run.log(params=facts if parent is None else None, tags=tags)
    return run


def log_rows(
    run: StudyRun, table: ResultTable, facts: Mapping[str, str], quiet: bool = False
) -> Imported:
    """Log the rows that the study does not have yet."""
    logged = {
        child.data.tags[ROW]: str(child.info.run_id)
        for child in all_runs(
            run.client, [run.experiment_id], trial_filter(check_quotes(run.study))
        )
        if ROW in child.data.tags
    }
    by_key = {row.key: row for row in table.rows}
    new = [row for key, row in by_key.items() if key not in logged]
    runs = [_run(run, row, facts) for row in new]
    ids = log_finished(run.client, run.experiment_id, runs, quiet)
    run_ids = logged | {row.key: run_id for row, run_id in zip(new, ids, strict=True)}
    rows = [(row, run_ids[key]) for key, row in by_key.items()]
    run.log(tags={CONTENT: content_key(table, facts)})
    return Imported(len(new), len(by_key) - len(new), rows)


def _run(run: StudyRun, row: ResultRow, facts: Mapping[str, str]) -> FinishedRun:
    tags = {
        "mlflow.user": user(),
        "mlflow.source.name": "mmq",
        **run.trial_tags(question_key(facts), row.allocation),
        **front_tags("dominated"),
        IMPORTED: "true",
        ROW: row.key,
    }
    params = width_params(dict(row.allocation.bits))
    return FinishedRun(str(row.allocation), params | dict(facts), row.metrics, tags)
