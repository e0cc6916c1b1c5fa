"""A run's params: the eval spec, and the versions of the packages."""

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from textwrap import shorten
from types import MappingProxyType
from typing import Any

from mmq.eval_spec import EvalSpec, JointSpec
from mmq.system import worker
from mmq.system.hashing import digest
from mmq.tracking.mlflow_ui import WIDTH, width_text

SIGNATURE = "mmq.asked"  # tag of a parent run: the signature of its study
PROVENANCE = ("origin", "limit", "python", "mlflow", "optuna", "mmq")  # scores depend on others
OF_A_SPEC = (
    "model.", "data.", "calibration.", "quantizer.", "evaluator.", "family.", "run.", "tasks.",
    "version.",
)  # fmt: skip
MOST, COMPARED = 4, 250  # differences in a message; characters of each value
PACKAGES = ("mmq", "torch", "transformers", "mlflow", "optuna")


@cache  # their metadata are files, and every trial logs them
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that results depend on, as params."""
    params = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            params[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return MappingProxyType(params)


def _text(value: Any) -> Any:
    """A mapping as the option that sets it: NAME=VALUE,NAME=VALUE."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return value


def width_params(widths: Mapping[str, int | str]) -> dict[str, str]:
    """The bits of each part as params: as numbers, and as levels of parallel coordinates."""
    bits = {f"bits.{name}": str(width) for name, width in widths.items()}
    return bits | {f"{WIDTH}.{name}": width_text(str(width)) for name, width in widths.items()}


def eval_spec_params(eval_spec: EvalSpec) -> dict[str, Any]:
    """An eval spec as params; dotted names cannot clash with those of the MLproject."""
    params = {
        "model.name": eval_spec.model,
        "model.fingerprint": eval_spec.model_fingerprint,
        "model.dtype": eval_spec.dtype,
        "data.name": eval_spec.data,
        "data.fingerprint": eval_spec.data_fingerprint,
        "data.samples": eval_spec.samples,
        "data.limit": eval_spec.limit,
        "calibration.fingerprint": eval_spec.calibration or "none",
        "calibration.samples": eval_spec.calibration_samples,
        "calibration.used": eval_spec.calibrated,
        "quantizer.name": eval_spec.quantizer,
        "quantizer.version": eval_spec.quantizer_version,
        "quantizer.origin": eval_spec.quantizer_origin,
        "evaluator.name": eval_spec.evaluator,
        "evaluator.version": eval_spec.evaluator_version,
        "evaluator.origin": eval_spec.evaluator_origin,
        "family.name": eval_spec.family,
        "family.version": eval_spec.family_version,
        "family.origin": eval_spec.family_origin,
        "run.seed": eval_spec.seed,
    }
    params |= {f"version.mmq.{room}": number for room, number in eval_spec.versions.items()}
    if eval_spec.allow_unread_weights:
        params["model.allow_unread_weights"] = True
    reading = {
        "data.dataset": eval_spec.dataset,
        "data.fields": eval_spec.fields,
        "calibration.data": eval_spec.calibration_data,
        "tasks.combine": eval_spec.combine if isinstance(eval_spec, JointSpec) else "",
    }
    params |= {name: value for name, value in reading.items() if value}
    if eval_spec.rendered_prompt:
        params["model.first_prompt"] = eval_spec.rendered_prompt
    params |= {f"model.{k}": _text(v) for k, v in eval_spec.tokenization.items()}
    decoding = eval_spec.generation_config.items()
    params |= {f"model.generation_config.{k}": v for k, v in decoding}
    params |= {f"quantizer.{k}": v for k, v in eval_spec.quantizer_options.items()}
    params |= {f"evaluator.{k}": v for k, v in eval_spec.evaluator_options.items()}
    return {**params, **versions()}


def shared_params(eval_specs: Sequence[EvalSpec]) -> dict[str, Any]:
    """The eval specs' params; where they differ, all values in a row."""
    params = [eval_spec_params(eval_spec) for eval_spec in eval_specs]
    names = dict.fromkeys(name for values in params for name in values)
    return {
        name: ", ".join(dict.fromkeys(str(values[name]) for values in params if name in values))
        for name in names
    }


def signature(eval_specs: Sequence[EvalSpec], kind: str) -> str:
    """Distinguishes a study from others of the same name."""
    return f"{kind} {digest(sorted(eval_spec.key for eval_spec in eval_specs))}"


def another_study(study: str, recorded: Mapping[str, str], eval_specs: Sequence[EvalSpec]) -> str:
    """The error for a name whose study has other eval specs, with what differs.

    recorded: the params of the study's parent run.
    """
    own = {name: str(value) for name, value in shared_params(eval_specs).items()}
    names = [
        name
        for name in sorted({*own, *recorded})
        if name.startswith(OF_A_SPEC)
        and name.rpartition(".")[2] not in PROVENANCE
        and own.get(name, "")[:COMPARED] != recorded.get(name, "")[:COMPARED]
    ]
    differing = "; ".join(
        f"{name} is {_short(recorded.get(name))} there and {_short(own.get(name))} here"
        for name in names[:MOST]
    )
    if worker.is_worker():
        return (
            f"study: the command that launched the worker on {worker.place()} plans {study!r} "
            f"with another eval spec ({differing or 'of another kind'}). Install the same "
            f"versions of mmq, its plugins, torch and transformers on all machines, and give them "
            f"the same model and data."
        )
    how = f"with another eval spec: {differing}" if differing else "of another kind"
    return f"study: {study!r} exists already, {how}. Choose another --study, or leave it empty."


def _short(value: str | None) -> str:
    return repr(shorten(value, 60)) if value else "unset"
