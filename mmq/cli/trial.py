"""The commands trial and evaluate-baseline."""

import dataclasses
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mmq.allocation.allocation import allocator
from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_json, print_where_saved
from mmq.studies.options import BaselineOptions, TrialOptions
from mmq.system.progress import notify

if TYPE_CHECKING:
    from mmq.contracts import Metric, Prediction
    from mmq.record import TrialRecord
    from mmq.studies.single import SingleTrial

EXAMPLES, EXCERPT = 3, 100  # answers that are printed; characters of each


@command("trial", "mmq trial --bits vit=4,qformer=8,llm=4 --limit 50", as_json=True)
@options_from(TrialOptions)
def trial(options: TrialOptions, plugin_options: Mapping[str, str], as_json: bool) -> None:
    """Quantize by one allocation, score it, and log it."""
    from mmq.studies.single import run_single

    data_fingerprint = ""
    if options.run:
        options, plugin_options, data_fingerprint = as_in_run(options, plugin_options)
    result = run_single(options, plugin_options, allocator(options.bits))
    _print(result, as_json)
    if data_fingerprint not in ("", result.record.spec.eval_spec.data_fingerprint):
        notify(
            "The samples differ from those of that run; the scores are not comparable.",
            important=True,
        )


@command("evaluate-baseline", "mmq evaluate-baseline --limit 50", as_json=True)
@options_from(BaselineOptions)
def evaluate_baseline(
    options: BaselineOptions, plugin_options: Mapping[str, str], as_json: bool
) -> None:
    """Score the unquantized model, and log it."""
    from mmq.studies.single import run_single, unquantized

    _print(run_single(options, plugin_options, unquantized), as_json)


def _print(result: "SingleTrial", as_json: bool) -> None:
    if as_json:
        record = result.record.to_json()
        del record["per_sample"]  # of record.json in the run
        print_json(record | {"url": result.url})
        return
    click.echo(f"{summary(result.record)}\n")
    if (score := result.record.score).value <= 0 or (score.low is not None and score.low <= 0):
        click.echo("".join(f"{line}\n" for line in example_lines(result.details.predictions)))
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")


def as_in_run(
    options: TrialOptions, plugin_options: Mapping[str, str]
) -> tuple[TrialOptions, Mapping[str, str], str]:
    """The options of a run, overridden by those given here; and the fingerprint of its data.

    `mlflow run` gives every option: there, one with its default value counts as not given.
    """
    from mmq.tracking import started_by_mlflow_run, trial_options

    applied_run = trial_options(options.run)
    fields = {f.name: f for f in dataclasses.fields(options)}
    had: dict[str, Any] = {**applied_run.options, "bits": applied_run.allocation}
    context, launched = click.get_current_context(), started_by_mlflow_run()

    def given_here(name: str) -> bool:
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        return typed and not (launched and getattr(options, name) == fields[name].default)

    own = {
        name: type(getattr(options, name))(value)
        for name, value in had.items()
        if not given_here(name)
    }
    same = [role for role, option in (("quantizer", "quantizer"), ("evaluator", "task"))
            if option in own or str(getattr(options, option)) == had[option]]  # fmt: skip
    plugins = {
        name: value
        for name, value in applied_run.plugins.items()
        if name.partition(".")[0] in same and not _is_given(name, plugin_options)
    }
    merged = {**plugins, **plugin_options}
    return dataclasses.replace(options, **own), merged, applied_run.data_fingerprint


def _is_given(name: str, plugin_options: Mapping[str, str]) -> bool:
    """Whether the options given here replace one of a run.

    name: quantizer.OPTION, evaluator.OPTION, or evaluator.TASK.OPTION of several tasks. OPTION
    alone is for all tasks.
    """
    given = {key.replace("-", "_").removeprefix("evaluator.") for key in plugin_options}
    of_task = name.removeprefix("evaluator.").replace("-", "_")
    return name in given or of_task in given or of_task.rpartition(".")[2] in given


def summary(record: "TrialRecord") -> str:
    """A trial's size and scores in a few lines."""
    stored = record.size.stored_bpw
    lines = [
        str(record.allocation),
        f"{record.size.bpw:.3f} bpw ({stored:.3f} stored), {record.size.gib:.4f} GiB, "
        f"{sum(record.seconds.values()):.1f} s",
    ]
    return "\n".join([*lines, *score_lines(record.metrics)])


def example_lines(predictions: Sequence["Prediction"]) -> list[str]:
    """What a model that scores next to nothing answers, with the expected answers."""
    return [
        f"e.g. {own.sample_id}: {shorten(own.prompt, EXCERPT)} -> {shorten(own.text, EXCERPT)!r} "
        f"(expected: {shorten(own.expected, EXCERPT)})"
        for own in predictions[:EXAMPLES]
    ]


def score_lines(metrics: Mapping[str, "Metric"]) -> list[str]:
    """One line per score, with its interval and number of samples."""
    width = max(len(name) for name in metrics)
    return [f"{name:<{width}}  {metric}, n = {metric.n}" for name, metric in metrics.items()]
