"""Exported models in MLflow: logged with their run, and as a version of their answer's model."""

import base64
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from mmq.contracts import registry
from mmq.errors import InputError, unknown
from mmq.export.facts import file_sizes, read_facts, scored_protocol
from mmq.export.pictures import sample_picture
from mmq.export.targets import target_class
from mmq.system.disk import GIB, in_mib
from mmq.tracking import served_model
from mmq.tracking.model_registry import EXPORTED, WEIGHTLESS, ensure_registered
from mmq.tracking.offline import STORE_ERRORS
from mmq.tracking.runs import Run
from mmq.tracking.serving import (
    FORMAT,
    IMAGE,
    MAX_NEW_TOKENS,
    NUM_BEAMS,
    TEXT,
)

log = logging.getLogger(__name__)
REGISTER = ("auto", "copy", "reference", "no")
COPIED = GIB  # largest folder that `auto` copies
NAME = "exported"  # name of the logged model
PLACE = "artifacts/model"  # path of a copied folder inside the logged model
PINNED = ("mlflow", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class ServedAs:
    """The address of a logged model, and whether it has a copy of the files."""

    address: str
    copied: bool

    def lines(self) -> list[str]:
        """The address, and the command that serves the model."""
        where = "a copy of the files" if self.copied else "a reference to the folder"
        return [
            f"MLflow model: {self.address}, with {where}.",
            f"Serve it: mlflow models serve -m {self.address} --env-manager local",
        ]


def check_register(how: str) -> None:
    """InputError for an unknown way to register."""
    if how not in REGISTER:
        raise unknown("register", how, REGISTER)


def register_export(
    run: Run, folder: Path, how: str, address: str = "", trial_run: str = ""
) -> ServedAs | None:
    """Log an exported folder as an MLflow model of a run, and register it.

    how: copy the files to the artifact store, or refer to the folder; "auto" copies up to 1 GiB.
    address: what was exported, a run's id or models:/NAME@ALIAS. Its registered model gets a new
    version, whose run is the trial's, and the alias moves to it. A trial of a study without a
    registered model gets one of the study's name; other models are logged only. If the store is
    unavailable, a warning reports that.
    """
    if how == "no":
        return None
    try:
        scored_protocol(read_facts(folder))
    except InputError as error:
        log.warning("%s is not registered (%s)", folder, error)
        return None
    copied = how == "copy" or (how == "auto" and sum(file_sizes(folder).values()) <= COPIED)
    try:
        model_id = _log_model(run, folder, copied)
        name, alias = _registered(run, address, trial_run)
        if not name:
            return ServedAs(f"models:/{model_id}", copied)
        number = _add_version(run, name, alias, model_id, folder, trial_run)
    except (*STORE_ERRORS, OSError) as error:
        log.warning("%s is exported and not registered (%s)", folder, error)
        return None
    return ServedAs(f"models:/{name}@{alias}" if alias else f"models:/{name}/{number}", copied)


def _log_model(run: Run, folder: Path, copied: bool) -> str:
    """Log the folder as a model of the run, and return the model's id."""
    client, facts = run.client, read_facts(folder)
    logged = client.create_logged_model(
        run.experiment_id,
        name=NAME,
        source_run_id=run.run_id,
        tags={"mlflow.note.content": _description(folder, facts)},
        params={"target": str(facts["target"]), "allocation": json.dumps(facts["allocation"])},
        model_type="mmq",
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model"
            save_model(path, folder, copied, logged.model_id, run.run_id)
            client.log_model_artifacts(logged.model_id, str(path))
        if copied:  # uploaded from where they are, not by way of the temporary folder
            client.log_model_artifacts(logged.model_id, str(folder), PLACE)
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def save_model(path: Path, folder: Path, copied: bool, model_id: str, run_id: str) -> None:
    """Write an MLflow model for an exported folder; of a copied one, all but the files."""
    facts = read_facts(folder)
    reference = {"folder": str(folder.absolute()), "key": facts["key"]}
    mlflow.pyfunc.save_model(
        path,
        python_model=served_model.__file__,
        mlflow_model=Model(model_id=model_id, run_id=run_id),
        signature=signature(),
        input_example=input_example(facts),
        pip_requirements=requirements(str(facts["target"])),
        model_config={"device": "auto"} | ({} if copied else reference),
        metadata={"mmq.target": facts["target"], "mmq.allocation": facts["allocation"]},
    )
    if copied:
        model = Model.load(path)
        model.flavors["python_function"]["artifacts"] = {
            "model": {"path": PLACE, "uri": folder.absolute().as_uri()}
        }
        model.save(path / "MLmodel")


def signature() -> ModelSignature:
    """A picture (bytes, base64, a data URI) and a text in; a text out.

    "" and 0 stand for what the model was scored with.
    """
    inputs = Schema([ColSpec(AnyType(), IMAGE), ColSpec(DataType.string, TEXT)])
    params = ParamSchema([
        ParamSpec(FORMAT, DataType.string, ""),
        ParamSpec(MAX_NEW_TOKENS, DataType.long, 0),
        ParamSpec(NUM_BEAMS, DataType.long, 0),
    ])  # fmt: skip
    return ModelSignature(inputs, Schema([ColSpec(DataType.string)]), params)


def input_example(facts: Mapping[str, Any]) -> dict[str, str]:
    """A small picture, with a question if the prompt has a place for one."""
    picture = base64.b64encode(sample_picture(32).data).decode()
    asks = "{}" in scored_protocol(facts).template
    return {IMAGE: picture, TEXT: "What is in the picture?" if asks else ""}


def requirements(target: str) -> list[str]:
    """Pinned packages that serve an exported model, with the extra for its engine."""
    plugin = target_class(target)
    extra = f"[{plugin.extra}]" if plugin.extra else ""
    owner = registry.identity("target", plugin).distribution
    pins = [f"mmq{extra}=={version('mmq')}"]
    pins += [f"{name}=={_release(name)}" for name in PINNED]
    return pins + ([f"{owner}=={version(owner)}"] if owner not in ("", "mmq") else [])


def _release(package: str) -> str:
    """The installed version without its local part, which package indexes do not have."""
    return version(package).partition("+")[0]


def _description(folder: Path, facts: Mapping[str, Any]) -> str:
    bits = " ".join(f"{name}={bits}" for name, bits in facts["allocation"].items())
    size = in_mib(sum(file_sizes(folder).values()))
    return (
        f"{facts['model']} at {bits}, quantized with {facts['quantizer']} and exported for "
        f"{facts['target']} ({size}): a picture and a text in, a text out."
    )


def _how_to_run(address: str) -> str:
    """The command that serves a version; Markdown."""
    return f"\n\nServe it: `mlflow models serve -m {address} --env-manager local`"


def _registered(run: Run, address: str, trial_run: str) -> tuple[str, str]:
    """Name and alias of the registered model that an export belongs to; "" for none."""
    if address.startswith("models:/"):
        name, _, alias = address.removeprefix("models:/").partition("@")
        return name.partition("/")[0], alias
    if not trial_run:
        return "", ""
    return str(run.client.get_run(trial_run).data.tags.get("mmq.study", "")), ""


def _add_version(
    run: Run, name: str, alias: str, model_id: str, folder: Path, trial_run: str
) -> str:
    """Register a logged model as a new version, and move the alias to it."""
    client, facts = run.client, read_facts(folder)
    ensure_registered(client, name)
    tags = {"allocation": json.dumps(facts["allocation"])}
    description = _description(folder, facts)
    if alias:
        answer = client.get_model_version_by_alias(name, alias)
        names = ("allocation", "bpw", "score")
        tags |= {key: value for key, value in answer.tags.items() if key in names}
        selected = (answer.description or "").partition(EXPORTED)[0].partition(WEIGHTLESS)[0]
        description = f"{selected}{EXPORTED}{description}"
    created = client.create_model_version(
        name,
        source=client.get_logged_model(model_id).artifact_location,
        run_id=trial_run,
        model_id=model_id,
        tags={
            **tags,
            "target": str(facts["target"]),
            "export_run": run.run_id,
            "folder": str(folder.absolute()),
        },
        description=description.strip(),
    )
    served = f"models:/{name}@{alias}" if alias else f"models:/{name}/{created.version}"
    text = description.strip() + _how_to_run(served)
    client.update_model_version(name, created.version, description=text)
    if alias:
        client.set_registered_model_alias(name, alias, created.version)
    return str(created.version)
