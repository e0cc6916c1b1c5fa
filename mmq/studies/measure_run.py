"""Measure an exported model beside the unquantized one, and log what both cost."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmq.errors import InputError
from mmq.export.facts import read_facts, scored_protocol
from mmq.export.measure import (
    ExportedModel,
    Measurement,
    Spread,
    Workload,
    check_exported,
    ratios,
    time_answers,
)
from mmq.export.targets import build_target, check_installed
from mmq.export.unquantized import unquantized
from mmq.studies.options import MeasureOptions
from mmq.system.device import resolve_device

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MeasuredExport:
    """The cost of an exported model. unquantized: the same of the unquantized model in its engine.

    ratios: to the unquantized model, by metric. note: why there are none; "" if there are.
    run_id, url: of the MLflow run.
    """

    folder: Path
    model: Measurement
    unquantized: Measurement | None
    note: str
    run_id: str
    url: str
    ratios: Mapping[str, Spread] = field(init=False)

    def __post_init__(self) -> None:
        values = {} if self.unquantized is None else ratios(self.model, self.unquantized)
        object.__setattr__(self, "ratios", values)


def run_measure(options: MeasureOptions, quiet: bool = False) -> MeasuredExport:
    """Measure an exported folder and log it; InputError for one that cannot be measured."""
    from mmq.tracking import connect, plain_run
    from mmq.tracking.measured import log_with_trial

    workload = Workload(
        options.repeats, options.tokens, options.picture, options.prompt, options.threads
    )
    device = resolve_device(options.device)
    folder = _folder(options)
    exported = ExportedModel.of(folder, device)
    target = build_target(exported.target, exported.options)
    check_installed(target)
    if reason := target.unavailable():
        raise InputError(f"target: {reason}")
    facts = read_facts(folder)
    scored_protocol(facts)  # InputError for a model that generates no text
    other, note = _unquantized(exported, options.unquantized)
    connect(options.experiment)
    title = f"measure {exported.target} {folder.name}"
    params = _params(exported, workload)
    with plain_run(options.experiment, title, params, kind="measure") as run:
        models = {"model": exported} | ({"unquantized": other} if other else {})
        costs = time_answers(models, workload, quiet)
        result = MeasuredExport(
            folder, costs["model"], costs.get("unquantized"), note, run.run_id, run.run_link()
        )
        engine, processor = result.model.engine, result.model.processor
        where = {
            "measure.engine": engine.name,
            "measure.engine_version": engine.version,
            "measure.threads": engine.threads,
            "measure.processor": processor,
        }
        metrics = _metrics(result)
        run.log(params=where, metrics={f"measure/{k}": v for k, v in metrics.items()})
        setting = (
            f"{engine}, {processor}, {workload.tokens} tokens, "
            f"{workload.picture or 'a generated picture'}"
        )
        if trial := str(facts.get("trial", "")):
            run.log(tags={"mmq.exported_from": trial})
            log_with_trial(run, trial, exported.target, metrics, setting)
    return result


def _folder(options: MeasureOptions) -> Path:
    from mmq.tracking.measured import exported_folder

    if bool(options.path) == bool(options.run):
        raise InputError(
            "path: give either an exported folder or --run, e.g. `mmq measure ./mine`"
        )
    folder = Path(options.path) if options.path else exported_folder(options.run)
    check_exported(folder)
    return folder.absolute()


def _unquantized(exported: ExportedModel, enabled: bool) -> tuple[ExportedModel | None, str]:
    """The unquantized model in the same engine; else why it is not measured."""
    if not enabled:
        return None, "no ratios: the unquantized model was not measured (--unquantized false)"
    try:
        return unquantized(exported), ""
    except InputError as error:
        note = f"no ratios: the unquantized model is not available ({error})"
        log.warning("%s", note)
        return None, note


def _params(exported: ExportedModel, workload: Workload) -> dict[str, object]:
    return {
        "measure.folder": str(exported.folder),
        "measure.target": exported.target,
        "measure.device": exported.device,
        "measure.repeats": workload.repeats,
        "measure.tokens": workload.tokens,
        "measure.picture": workload.picture or "generated",
        "measure.prompt": workload.prompt,
    }


def _metrics(result: MeasuredExport) -> dict[str, float]:
    """Costs of both models and ratios by name."""
    values = dict(result.model.metrics())
    if result.unquantized is not None:
        others = result.unquantized.metrics()
        values |= {f"unquantized/{name}": value for name, value in others.items()}
    for name, spread in result.ratios.items():
        values |= {
            f"ratio/{name}": spread.median,
            f"ratio/{name}_low": spread.low,
            f"ratio/{name}_high": spread.high,
        }
    return values
