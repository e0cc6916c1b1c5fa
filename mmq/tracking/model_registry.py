"""Selected allocations in MLflow's model registry, and the options of a logged trial."""

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
from mmq.analysis.selection import Selection
from mmq.errors import InputError
from mmq.tracking.connection import shown_uri
from mmq.tracking.contact import contacting, open_client
from mmq.tracking.mlflow_internals import defer_signals
from mmq.tracking.offline import STORE_ERRORS, short_timeouts, unreachable
from mmq.tracking.studies import StudyRun

log = logging.getLogger(__name__)
FILE = "allocation.json"
EXPORTED = "\n\nExported: "  # part of the description of an exported version
WEIGHTLESS = "\n\nThis version is an allocation"  # description of one without weights


def register(run: StudyRun, selection: Selection) -> str:
    """Register a selected allocation as a version of the study's model, and return its address.

    The version's source is the trial's run, which gets the allocation as JSON; its alias is named
    after the bounds. The same allocation is not registered twice. If the store has no registry or
    is unavailable, a warning reports that, and the address is the run's id.
    """
    assert selection.point is not None
    assert selection.point.run_id is not None
    try:
        with short_timeouts():
            return _register(run, selection, selection.point.run_id)
    except STORE_ERRORS as error:
        log.warning("%s: not registered (%s)", selection.criterion, error)
        return selection.point.run_id


def _register(run: StudyRun, selection: Selection, run_id: str) -> str:
    point, client, name = selection.point, run.client, run.study
    assert point is not None
    address = f"models:/{name}@{selection.alias}"
    ensure_registered(client, name)
    description = selection.text
    current = _version(client, name, selection.alias)
    if current is not None and current.run_id == run_id:
        _, exported, how = (current.description or "").partition(EXPORTED)
        description += exported + how if exported else _how_to_use(address)
        client.update_model_version(name, current.version, description=description)
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
        description=description + _how_to_use(address),
    )
    client.set_registered_model_alias(name, selection.alias, version.version)
    return address


def _how_to_use(address: str) -> str:
    """A description of a version without weights, with commands that use it; Markdown."""
    return (
        f"{WEIGHTLESS} (bits per part), not weights. Evaluate it again: `mmq trial --run "
        f"{address}`. Write the model, e.g. for llama.cpp: `mmq export --run {address} --target "
        f"gguf --out ./model`. The export becomes the next version, which can be served."
    )


def ensure_registered(client: MlflowClient, study: str) -> None:
    """Create the registered model of a study, unless it exists."""
    defer_signals(client, registry=True)
    description = (
        f"Allocations selected in study {study}, one alias per selection, and their "
        f"exports. A version's description says what it is and how to run it."
    )
    try:
        client.create_registered_model(study, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """A trial's command options. plugins: those of quantizer and evaluator."""

    allocation: str
    options: Mapping[str, str]
    plugins: Mapping[str, str]
    data_fingerprint: str
    model_fingerprint: str = ""
    run_id: str = ""


# command option of each param
OPTIONS = {
    "model.name": "model",
    "model.dtype": "dtype",
    "model.template": "template",
    "model.system_prompt": "system_prompt",
    "model.min_pixels": "min_pixels",
    "model.max_pixels": "max_pixels",
    "data.name": "data",
    "data.dataset": "dataset",
    "data.fields": "fields",
    "data.limit": "limit",
    "calibration.data": "calibration_data",
    "calibration.samples": "calibration_samples",
    "tasks.combine": "combine",
    "quantizer.name": "quantizer",
    "evaluator.name": "task",
    "run.seed": "seed",
}


def trial_options(address: str) -> TrialOptions:
    """The options of a trial, from its run id, models:/NAME@ALIAS or models:/NAME/VERSION.

    InputError if there is no such trial.
    """
    with contacting():
        run = find_run(address)
    params, tags = run.data.params, run.data.tags
    if "mmq.allocation" not in tags or "quantizer.name" not in params:
        raise InputError(
            f"run: {address} is not a trial of mmq; give the id of a trial's run, or "
            f"models:/NAME@ALIAS"
        )
    plugins = {
        name: value
        for name, value in params.items()
        if name.startswith(("quantizer.", "evaluator."))
        and name.partition(".")[2] not in ("name", "version", "origin")
        and value != "None"
    }
    return TrialOptions(
        tags["mmq.allocation"],
        {option: params[name] for name, option in OPTIONS.items() if name in params},
        plugins,
        params.get("data.fingerprint", ""),
        params.get("model.fingerprint", ""),
        str(run.info.run_id),
    )


def find_run(address: str) -> MlflowRun:
    """The run of a run id, or of a version: models:/NAME@ALIAS or models:/NAME/VERSION."""
    client = open_client()
    name, at, alias = address.removeprefix("models:/").partition("@")
    try:
        if at:
            address = client.get_model_version_by_alias(name, alias).run_id
        elif address.startswith("models:/"):
            name, _, version = name.partition("/")
            if not version:
                raise InputError(
                    f"run: {address} has no version; write {address}@ALIAS or {address}/1"
                )
            address = client.get_model_version(name, version).run_id
        return client.get_run(address)
    except MlflowException as error:
        if unreachable(error):
            raise
        aliases = _aliases(client, name) if at else ""
        raise InputError(
            f"run: {address!r} is not in the MLflow store {shown_uri(mlflow.get_tracking_uri())} "
            f"({error.message}). Give a run's id, or {aliases or 'models:/NAME@ALIAS'}; set "
            f"MLFLOW_TRACKING_URI to use another store."
        ) from error


def _aliases(client: MlflowClient, name: str) -> str:
    """The addresses of a registered model's versions with an alias; "" for none."""
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        return ""
    return " or ".join(f"models:/{name}@{alias}" for alias in sorted(aliases))
