"""The commands trial and evaluate-baseline."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.artifacts.store import Store
from mmq.cli.options import options_from
from mmq.cli.places import say_how_to_browse, say_where_saved
from mmq.config import EXPERIMENT_HELP, QuestionOptions, option
from mmq.contracts import Metric
from mmq.eval_spec import EvalSpec
from mmq.prepare import prepare
from mmq.record import TrialRecord, TrialSpec
from mmq.system.home import home
from mmq.trial import run_trial


@dataclass(frozen=True, slots=True)
class BaselineOptions(QuestionOptions):
    """A question whose answer is the unquantized model's score."""

    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class TrialOptions(BaselineOptions):
    """One allocation of a question."""

    bits: str = option("vit=4,qformer=8,llm=4", "Allocation; components not named stay at 16.")
    run: str = option(
        "", "Do again what a trial's run did, or models:/NAME@ALIAS; options differ."
    )


@click.command("trial")
@options_from(TrialOptions)
def trial(chosen: TrialOptions, extra: Mapping[str, str]) -> None:
    """Quantize by one allocation, score it, log it."""
    known = ""
    if chosen.run:
        chosen, extra, known = as_in_run(chosen, extra)
    allocation = BitAllocation.parse(chosen.bits)
    question = run_single(chosen, extra, allocation.over)
    if known and known != question.data_fingerprint:
        click.echo("\nThese are other samples than those of that run: its score is another one.")


def as_in_run(
    chosen: TrialOptions, extra: Mapping[str, str]
) -> tuple[TrialOptions, Mapping[str, str], str]:
    """Options as a run had them, but for those that were given; its data's fingerprint.

    With `mlflow run` all options are given: one that has its default's value counts as not given.
    """
    from mmq.tracking import started_by_mlflow_run, trial_options

    found = trial_options(chosen.run)
    names = {f.name: f for f in dataclasses.fields(chosen)}
    had: dict[str, Any] = {**found.options, "bits": found.allocation}
    context, launched = click.get_current_context(), started_by_mlflow_run()

    def given_here(name: str) -> bool:
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        return typed and not (launched and getattr(chosen, name) == names[name].default)

    own = {
        name: type(getattr(chosen, name))(value)
        for name, value in had.items()
        if not given_here(name)
    }
    same = [role for role, option in (("quantizer", "quantizer"), ("evaluator", "task"))
            if option in own or str(getattr(chosen, option)) == had[option]]  # fmt: skip
    given = {name.replace("-", "_").rpartition(".")[2] for name in extra}
    plugins = {
        name: value
        for name, value in found.plugins.items()
        if name.partition(".")[0] in same and name.partition(".")[2] not in given
    }
    return dataclasses.replace(chosen, **own), {**plugins, **extra}, found.data_fingerprint


@click.command("evaluate-baseline")
@options_from(BaselineOptions)
def evaluate_baseline(chosen: BaselineOptions, extra: Mapping[str, str]) -> None:
    """Score the unquantized model, log it."""
    run_single(chosen, extra, lambda parts: BitAllocation.uniform(parts, UNQUANTIZED))


def run_single(
    chosen: BaselineOptions,
    extra: Mapping[str, str],
    allocate: Callable[[Sequence[str]], BitAllocation],
) -> EvalSpec:
    """One trial in a run of its own; what it answered."""
    from mmq.tracking import connect, run_link, server_address, single_run

    prepared = prepare(chosen, extra, lambda parts: [allocate(parts)])
    connect(chosen.experiment)
    model = prepared.load()
    spec = TrialSpec(prepared.question, allocate(list(model.components)))
    try:
        with single_run(chosen.experiment, spec) as run:
            record = run_trial(
                spec,
                model,
                prepared.artifacts(Store(home() / "store")),
                prepared.evaluator,
                prepared.samples,
            )
            run.finish(record)
    finally:
        prepared.evaluator.close()
    click.echo(summary(record))
    click.echo()
    say_where_saved()
    say_how_to_browse()
    click.echo(f"Open:      {run_link(server_address(), run.experiment_id, run.run_id)}")
    return prepared.question


def summary(record: TrialRecord) -> str:
    """A trial's size and scores in a few lines."""
    stored = record.size.stored_bpw
    lines = [
        str(record.spec.allocation),
        f"{record.size.bpw:.3f} bpw ({stored:.3f} stored), {record.size.gib:.4f} GiB, "
        f"{sum(record.seconds.values()):.1f} s",
    ]
    names = record.evaluation.metrics
    width = max(len(name) for name in names)
    lines += [f"{name:<{width}}  {score_text(metric)}" for name, metric in names.items()]
    return "\n".join(lines)


def score_text(metric: Metric) -> str:
    """A score with its interval and number of samples."""
    interval = "" if metric.low is None else f" ({metric.low:.4g} to {metric.high:.4g})"
    return f"{metric.value:.4g}{interval}, n = {metric.n}"
