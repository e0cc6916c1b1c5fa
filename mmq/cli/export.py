"""`mmq export`: write the scored model in an engine's format, and verify it."""

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmq.allocation.allocation import BitAllocation, allocator
from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.trial import as_in_run
from mmq.config import option
from mmq.errors import InputError
from mmq.export.facts import CARD, file_sizes
from mmq.studies.options import TrialOptions
from mmq.system.disk import in_mib
from mmq.system.home import home

if TYPE_CHECKING:
    from mmq.contracts import Metric
    from mmq.eval_spec import EvalSpec
    from mmq.export.session import ExportSession
    from mmq.export.verify import Proof
    from mmq.tracking.model_registry import TrialOptions as LoggedTrialOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportOptions(TrialOptions):
    """A trial's allocation, and the format to write it in."""

    target: str = option(
        "torch", "Format (e.g. gguf or compressed-tensors:vllm); see `mmq plugins`."
    )
    out: str = option("", "Folder to write (e.g. ./mine); empty: one in mmq's home.")
    no_verify: bool = option(False, "Skip the proof of weights, outputs and size.")
    verify_samples: int = option(
        32, "Compare the engine's outputs on this many samples (e.g. 100)."
    )
    register: str = option(
        "auto",
        "Log an MLflow model to serve: copy the files, reference the folder, or no; auto: copy up "
        "to 1 GiB.",
    )


@command("export", "mmq export --model embedded-llava --bits vit=8,llm=4 --target gguf --out mine")
@options_from(ExportOptions)
def export(options: ExportOptions, plugin_options: Mapping[str, str]) -> None:
    """Write a quantized model for an engine, and verify that it is the one that was scored.

    The folder appears when it is complete. Run the same command again to resume.
    """
    from mmq.export.run import check_output
    from mmq.export.session import ExportSession
    from mmq.export.targets import build_target, check_installed, split_options
    from mmq.studies.joint_tasks import prepare_tasks
    from mmq.tracking import connect, plain_run, trial_options
    from mmq.tracking.exported_models import check_register, register_export
    from mmq.tracking.params import eval_spec_params

    _check_samples(options)
    check_register(options.register)
    own, plugin_options = split_options(options.target, plugin_options)
    target = build_target(options.target, own)
    check_installed(target, engine=not options.no_verify)
    trial = trial_options(options.run) if options.run else None
    if trial:
        options, plugin_options = _as_in_trial(options, plugin_options)
    allocate = allocator(options.bits)
    out = Path(options.out) if options.out else _default_folder(options)
    check_output(out)
    prepared = prepare_tasks(options, plugin_options, options.combine, lambda p: [allocate(p)])
    if trial:
        _check_unchanged(prepared.eval_spec, trial.model_fingerprint, options.run)
    allocation = allocate(list(prepared.skeleton.components))
    session = ExportSession.of(prepared, allocation, options.target, target)
    if trial and not _is_trial(session, trial):
        log.warning("The options given here differ from those of %s: this is another model, which "
                    "is exported without that run's scores", options.run)  # fmt: skip
        trial = None
    connect(options.experiment)
    name = str(session.plan.allocation)
    params = eval_spec_params(prepared.eval_spec) | {
        "export.target": options.target,
        "export.out": str(out.absolute()),
        **{f"target.{option}": value for option, value in own.items()},
    }
    tags = {"mmq.allocation": name} | ({"mmq.exported_from": trial.run_id} if trial else {})
    title = f"export {options.target} {name}"
    with plain_run(options.experiment, title, params, kind="export") as run:
        run.log(tags=tags)
        samples = 0 if options.no_verify else options.verify_samples
        trial_id = trial.run_id if trial else ""
        scores = _scores(trial_id) if trial_id else None
        report, proof = session.run(out, samples, scores, trial_id)
        run.log(metrics=_metrics(out, proof))
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(out / CARD, folder)
            run.log_folder(Path(folder))
        served = register_export(
            run, out, options.register, options.run if trial else "", trial_id
        )
    click.echo(_summary(out, proof))
    for line in served.lines() if served else ():
        click.echo(line)
    for note in report.notes:
        click.echo(f"Note: {note}")


def _check_samples(options: ExportOptions) -> None:
    """InputError for a proof without samples."""
    if options.verify_samples < 1:
        raise InputError(
            f"verify_samples: {options.verify_samples} is not at least 1; give --no-verify to "
            f"skip the proof"
        )


def _as_in_trial(
    options: ExportOptions, plugin_options: Mapping[str, str]
) -> tuple[ExportOptions, Mapping[str, str]]:
    """The options that a trial had, where none are given here."""
    together, plugin_options, _ = as_in_run(options, plugin_options)
    assert isinstance(together, ExportOptions)
    return together, plugin_options


def _check_unchanged(eval_spec: "EvalSpec", fingerprint: str, trial: str) -> None:
    """InputError where the source checkpoint changed since the trial."""
    if fingerprint and fingerprint != eval_spec.model_fingerprint:
        raise InputError(
            f"model: {eval_spec.model} changed since the trial {trial}: its files have the "
            f"fingerprint {eval_spec.model_fingerprint}, the trial's had {fingerprint}. Restore "
            f"the folder, or score it again and export that run"
        )


def _is_trial(session: "ExportSession", trial: "LoggedTrialOptions") -> bool:
    """Whether an export is of a trial's model: the same allocation and quantizer options."""
    plan, eval_spec = session.plan, session.prepared.eval_spec
    options = {
        f"quantizer.{name}": str(value)
        for name, value in eval_spec.quantizer_options.items()
        if value is not None
    }
    theirs = {k: v for k, v in trial.plugins.items() if k.startswith("quantizer.")}
    allocation = BitAllocation.parse(trial.allocation).over(session.prepared.skeleton.components)
    same = options == theirs and eval_spec.quantizer == trial.options.get("quantizer")
    return same and allocation == plan.allocation


def _scores(run_id: str) -> "Mapping[str, Metric] | None":
    """A trial's scores from its run."""
    from mmq.tracking import fetch_record

    record = fetch_record(run_id)
    if record is None:
        return None
    return record.metrics


def _default_folder(options: ExportOptions) -> Path:
    """A folder in mmq's home, named after what is exported."""
    words = (Path(options.model).name, options.bits, options.target)
    return home() / "exports" / re.sub(r"[^\w.=+-]+", "-", "-".join(words))


def _metrics(out: Path, proof: "Proof | None") -> dict[str, float]:
    metrics: dict[str, float] = {"export/bytes": sum(file_sizes(out).values())}
    if proof is None:
        return metrics
    metrics |= {
        "export/bytes_promised": proof.bytes.promised,
        "export/weights_equal": proof.weights.equal,
        "export/weights": proof.weights.layers,
    }
    for outputs in proof.compared:
        prefix = f"export/{outputs.task}" if outputs.task else "export"
        metrics |= {
            f"{prefix}/outputs_equal": outputs.samples - len(outputs.different),
            f"{prefix}/outputs": outputs.samples,
            f"{prefix}/score": outputs.engine.value,
            f"{prefix}/score_simulated": outputs.simulated.value,
            f"{prefix}/score_gray_pictures": outputs.blind.value,
        }
    if proof.cost is not None:
        metrics |= {f"export/{name}": value for name, value in proof.cost.metrics().items()}
    return metrics


def _summary(out: Path, proof: "Proof | None") -> str:
    size = sum(file_sizes(out).values())
    lines = [f"Exported to {out} ({in_mib(size)}); {out / CARD} says how to run it."]
    lines += proof.lines() if proof else ["Not verified."]
    return "\n".join([*lines, *([str(proof.cost)] if proof and proof.cost else [])])
