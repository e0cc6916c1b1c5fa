"""What a study chose, in MLflow's model registry; and what a run was, to apply it again."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.selection import Answer
from mmq.errors import InputError
from mmq.tracking.connection import shown_uri
from mmq.tracking.contact import contacting, open_client
from mmq.tracking.offline import STORE_ERRORS, hasty, unreachable
from mmq.tracking.studies import StudyRun

log = logging.getLogger(__name__)
FILE = "allocation.json"


def register(run: StudyRun, answer: Answer) -> str:
    """Register what answers a question as a version of the study's model; its address.

    The version's source is the trial's run, which gets the allocation as JSON; the question is its
    alias. The same answer again makes no second version. Where the store has no registry, or is
    away, a warning says so, and the address is the run's id.
    """
    assert answer.point is not None
    assert answer.point.run_id is not None
    try:
        with hasty():
            return _register(run, answer, answer.point.run_id)
    except STORE_ERRORS as error:
        log.warning("%s: not registered (%s)", answer.question, error)
        return answer.point.run_id


def _register(run: StudyRun, answer: Answer, run_id: str) -> str:
    point, client, name = answer.point, run.client, run.study
    assert point is not None
    address = f"models:/{name}@{answer.alias}"
    try:
        client.create_registered_model(name, description=f"Allocations chosen in study {name}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = _version(client, name, answer.alias)
    if known is not None and known.run_id == run_id:
        client.update_model_version(name, known.version, description=answer.text)
        return address
    bits = json.dumps(BitAllocation.parse(point.allocation).as_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text(bits)
        client.log_artifact(run_id, str(path))
    version = client.create_model_version(
        name,
        source=f"runs:/{run_id}/{FILE}",
        run_id=run_id,
        tags={"allocation": bits, "bpw": f"{point.bpw:.4f}", "score": f"{point.score:.6g}"},
        description=answer.text,
    )
    client.set_registered_model_alias(name, answer.alias, version.version)
    return address


def _version(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


@dataclass(frozen=True, slots=True)
class Applied:
    """What a trial was asked, as command options. plugins: options of quantizer and evaluator."""

    allocation: str
    options: Mapping[str, str]
    plugins: Mapping[str, str]
    data_fingerprint: str
    model_fingerprint: str = ""
    run_id: str = ""


# which option each param of a question is
OPTIONS = {
    "model.name": "model",
    "model.dtype": "dtype",
    "data.name": "data",
    "data.limit": "limit",
    "calibration.samples": "calibration_samples",
    "quantizer.name": "quantizer",
    "evaluator.name": "task",
    "run.seed": "seed",
}


def applied(address: str) -> Applied:
    """What the trial of a run id, or of models:/NAME@ALIAS or models:/NAME/VERSION, was asked.

    InputError where there is none.
    """
    with contacting():
        run = _find(address)
    params, tags = run.data.params, run.data.tags
    if "mmq.allocation" not in tags or "quantizer.name" not in params:
        raise InputError(f"run: {address} is no trial of mmq; give the id of a trial's run")
    plugins = {
        name: value
        for name, value in params.items()
        if name.startswith(("quantizer.", "evaluator."))
        and name.partition(".")[2] not in ("name", "origin")
        and value != "None"
    }
    return Applied(
        tags["mmq.allocation"],
        {option: params[name] for name, option in OPTIONS.items() if name in params},
        plugins,
        params.get("data.fingerprint", ""),
        params.get("model.fingerprint", ""),
        str(run.info.run_id),
    )


def _find(address: str) -> MlflowRun:
    client = open_client()
    name, at, alias = address.removeprefix("models:/").partition("@")
    try:
        if at:
            address = client.get_model_version_by_alias(name, alias).run_id
        elif address.startswith("models:/"):
            name, _, version = name.partition("/")
            if not version:
                raise InputError(f"run: {address} names no version; write {address}@ALIAS or /1")
            address = client.get_model_version(name, version).run_id
        return client.get_run(address)
    except MlflowException as error:
        if unreachable(error):
            raise
        raise InputError(
            f"run: {address!r} is not in the MLflow store {shown_uri(mlflow.get_tracking_uri())} "
            f"({error.message}). Give a run's id, or models:/NAME@ALIAS; another store is set "
            f"with MLFLOW_TRACKING_URI."
        ) from error
