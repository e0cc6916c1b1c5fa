"""Results of elsewhere as a study: a parent run, a nested run a row, none of them twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmq.analysis.results_file import ResultRow, ResultTable
from mmq.errors import InputError
from mmq.system.hashing import digest
from mmq.tracking.bulk import FinishedRun, create_finished
from mmq.tracking.connection import connect
from mmq.tracking.queries import all_runs, quoted
from mmq.tracking.runs import user
from mmq.tracking.studies import StudyRun, known_study, open_study
from mmq.tracking.views import trial_filter

IMPORTED = "mmq.imported"  # tag of runs whose scores come from a file
CONTENT = "mmq.content"  # tag of a study with the hash of all rows of its last import
ROW = "mmq.row"  # tag with the hash of a row's content


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. rows: all of the study's rows that the file has, with their runs."""

    new: int
    known: int
    rows: Sequence[tuple[ResultRow, str]]


def check_study(experiment: str, study: str, facts: Mapping[str, str]) -> tuple[str, str] | None:
    """The study's parent run, as `known_study` says it.

    InputError where it has trials that were run here, or results of something else.
    """
    parent = known_study(experiment, study)
    if parent is None:
        return None
    client, _ = connect(experiment)
    tags = client.get_run(parent[1]).data.tags
    if IMPORTED not in tags:
        raise InputError(
            f"study: {study!r} has trials that mmq ran; choose another --study for results of "
            f"elsewhere"
        )
    if tags.get("mmq.eval_spec") != question_key(facts):
        raise InputError(
            f"study: {study!r} has results of another model, task, data or quantizer; give the "
            f"same names again, or choose another --study"
        )
    return parent


def content_key(table: ResultTable, facts: Mapping[str, str]) -> str:
    """A hash of all rows and of what they are of, in whatever order."""
    return digest([question_key(facts), sorted({row.key for row in table.rows})])


def study_with(experiment: str, content: str) -> str | None:
    """The study that was imported from exactly these rows, if there is one."""
    client, experiment_id = connect(experiment)
    query = f"tags.`{CONTENT}` = '{content}' and tags.`mmq.kind` = 'study'"
    found = client.search_runs([experiment_id], query, max_results=1)
    return str(found[0].data.tags["mmq.study"]) if found else None


def question_key(facts: Mapping[str, str]) -> str:
    """A hash of the names that results are of."""
    return digest(["imported", dict(facts)])


def open_import(experiment: str, study: str, facts: Mapping[str, str]) -> StudyRun:
    """The study's parent run, made or found. facts: params such as model.name."""
    parent = check_study(experiment, study, facts)
    run = open_study(experiment, study, parent, f"imported {study}")
    tags = {IMPORTED: "true", "mmq.eval_spec": question_key(facts)}
    run.log(params=facts if parent is None else None, tags=tags)
    return run


def log_rows(
    run: StudyRun, table: ResultTable, facts: Mapping[str, str], quiet: bool = False
) -> Imported:
    """Log the rows that the study does not have yet."""
    known = {
        each.data.tags[ROW]: str(each.info.run_id)
        for each in all_runs(run.client, [run.experiment_id], trial_filter(quoted(run.study)))
        if ROW in each.data.tags
    }
    wanted = {row.key: row for row in table.rows}
    new = [row for key, row in wanted.items() if key not in known]
    runs = [_run(run, row, facts) for row in new]
    ids = create_finished(run.client, run.experiment_id, runs, quiet)
    found = known | {row.key: run_id for row, run_id in zip(new, ids, strict=True)}
    rows = [(row, found[key]) for key, row in wanted.items()]
    run.log(tags={CONTENT: content_key(table, facts)})
    return Imported(len(new), len(wanted) - len(new), rows)


def _run(run: StudyRun, row: ResultRow, facts: Mapping[str, str]) -> FinishedRun:
    tags = {
        "mlflow.user": user(),
        "mlflow.source.name": "mmq",
        **run.trial_tags(question_key(facts), row.allocation),
        IMPORTED: "true",
        ROW: row.key,
    }
    params = {f"bits.{part}": str(bits) for part, bits in row.allocation.bits}
    return FinishedRun(str(row.allocation), params | dict(facts), row.metrics, tags)
