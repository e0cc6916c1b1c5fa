"""A run's params: the eval spec, and the versions of the packages."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mmq.eval_spec import EvalSpec

PACKAGES = ("mmq", "torch", "transformers", "mlflow", "optuna")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as params."""
    params = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            params[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return params


def question_params(question: EvalSpec) -> dict[str, Any]:
    """An eval spec as params; dotted names cannot clash with those of the MLproject."""
    params = {
        "model.name": question.model,
        "model.fingerprint": question.model_fingerprint,
        "model.dtype": question.dtype,
        "data.name": question.data,
        "data.fingerprint": question.data_fingerprint,
        "data.samples": question.samples,
        "data.limit": question.limit,
        "calibration.fingerprint": question.calibration or "none",
        "calibration.samples": question.calibration_samples,
        "calibration.used": question.calibrated,
        "quantizer.name": question.quantizer,
        "quantizer.origin": question.quantizer_origin,
        "evaluator.name": question.evaluator,
        "evaluator.origin": question.evaluator_origin,
        "run.seed": question.seed,
    }
    if question.allow_unread_weights:
        params["model.allow_unread_weights"] = True
    params |= {f"model.{k}": v for k, v in question.reading.items()}
    params |= {f"quantizer.{k}": v for k, v in question.quantizer_options.items()}
    params |= {f"evaluator.{k}": v for k, v in question.evaluator_options.items()}
    return params | versions()
