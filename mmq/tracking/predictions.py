"""The predictions of logged trials."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.system import checksums
from mmq.system.sealed import Unusable
from mmq.tracking.contact import contacting
from mmq.tracking.files import ALL_PREDICTIONS
from mmq.tracking.model_registry import find_run
from mmq.tracking.offline import STORE_ERRORS


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """A model's output for one sample, as a run logged it; see Prediction.

    image: the pictures' file names.
    """

    sample_id: str
    prompt: str
    text: str
    expected: str
    score: float
    image: str
    answer: str


@dataclass(frozen=True, slots=True)
class LoggedAnswers:
    """The answers of a trial's run, by sample id, with what they were scored on."""

    run_id: str
    allocation: str
    data_fingerprint: str
    answers: dict[str, LoggedAnswer]


def fetch_answers(address: str) -> LoggedAnswers:
    """The answers of a trial: a run's id, or models:/NAME@ALIAS; InputError without any."""
    with contacting():
        run = find_run(address)
        tags, run_id = run.data.tags, str(run.info.run_id)
        if "mmq.allocation" not in tags:
            raise InputError(f"run: {address} is not a trial of mmq; give the id of a trial's run")
        _refuse_several(run, address)
        source = str(tags.get("mmq.recorded_by", run_id))
        answers = {prediction.sample_id: prediction for prediction in _read(source, address)}
    fingerprint = run.data.params.get("data.fingerprint", "")
    return LoggedAnswers(run_id, tags["mmq.allocation"], fingerprint, answers)


def _refuse_several(run: Any, address: str) -> None:
    """InputError for a trial of several tasks, each of which has a run of its own."""
    if "," not in run.data.params.get("evaluator.name", ""):
        return
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.`mmq.kind` = 'task'"
    tasks = MlflowClient().search_runs([run.info.experiment_id], query)
    runs = ", ".join(f"{task.data.tags['mmq.task']}: {task.info.run_id}" for task in tasks)
    raise InputError(
        f"run: {address} scores several tasks; give the run of one of them ({runs or 'none'})"
    )


def _read(run_id: str, address: str) -> list[LoggedAnswer]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(MlflowClient().download_artifacts(run_id, ALL_PREDICTIONS, folder))
            content = path.read_bytes()
            _check(path, run_id, folder)
            rows = json.loads(content)
            return [_logged(row) for row in rows]
        except (MlflowException, *STORE_ERRORS, OSError) as error:
            raise InputError(
                f"run: {address} has no predictions ({error}); give the run of an evaluated trial"
            ) from error
        except (Unusable, ValueError, TypeError, LookupError) as error:
            raise InputError(f"run: the predictions of {address} are damaged ({error})") from error


def _logged(row: dict[str, Any]) -> LoggedAnswer:
    """A row of the file; runs of earlier versions have outputs alone."""
    return LoggedAnswer(**{k: ({"answer": row["text"]} | row)[k] for k in LoggedAnswer.__slots__})


def _check(path: Path, run_id: str, folder: str) -> None:
    """Unusable if a file differs from its checksum; runs of single trials may have none."""
    try:
        sums = Path(MlflowClient().download_artifacts(run_id, checksums.NAME, folder))
    except (MlflowException, *STORE_ERRORS, OSError):
        return
    checksums.check_file(path, checksums.expected(sums.parent, run_id)[ALL_PREDICTIONS])
