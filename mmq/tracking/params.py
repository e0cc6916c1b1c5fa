"""A run's params: the eval spec, and the versions of the packages."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from mmq.eval_spec import EvalSpec, JointSpec
from mmq.tracking.mlflow_ui import WIDTH, width_text

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
