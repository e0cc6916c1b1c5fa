"""`mmq evaluate`: score a model behind a server."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.trial import score_lines
from mmq.config import EXPERIMENT_HELP, TaskOptions, option, repeatable
from mmq.contracts import registry
from mmq.contracts.options import build, distribute
from mmq.errors import InputError
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.task_names import single_task

if TYPE_CHECKING:
    from mmq.contracts import Evaluator, GeneratingEvaluator
    from mmq.data.draw import DrawnData


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """A server and a task."""

    endpoint: str = option("", "Base URL of the server (e.g. http://127.0.0.1:8080/v1).")
    endpoint_model: str = option("", "Name of the model on the server; empty: the first it lists.")
    task: str = option("vqa", "Evaluator to score with; see `mmq plugins`.")
    data: str = option(
        "scenes", "Bundled data set, folder of a data set, or a table (photos.csv)."
    )
    dataset: str = option("", "Data set plugin that reads the data (e.g. vqav2); empty: detected.")
    fields: str = option("", "Columns of a table (e.g. image=photo,question=q); empty: guessed.")
    limit: str = option(
        "0", "Score a seeded random subset (e.g. 500 samples, or 10%); 0: all samples."
    )
    seed: int = option(0, "Seed of the random subset.")
    system_prompt: str = option("", "Start every conversation with this system message.")
    template: str = repeatable(
        "Set variables of the server's chat template (e.g. enable_thinking=false); repeatable."
    )
    concurrency: int = option(8, "Send up to this many requests at a time (e.g. 16).")
    timeout: float = option(120.0, "Retry a request without a response after this many seconds.")
    retries: int = option(5, "Retry a request up to this many times, with increasing delays.")
    experiment: str = option("", EXPERIMENT_HELP)

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)} is not at least {least}")
        if not self.timeout > 0:
            raise InputError(f"timeout: {self.timeout} is not a number of seconds above 0")


@command("evaluate", "mmq evaluate --endpoint http://127.0.0.1:8080/v1 --task vqa --limit 50")
@options_from(EvaluateOptions)
def evaluate(options: EvaluateOptions, plugin_options: Mapping[str, str]) -> None:
    """Score a model behind a server (vLLM, llama-server, SGLang) by the OpenAI protocol.

    Answers are saved as they come: the same command resumes after an error or a kill.
    """
    from mmq.evaluation.generating import Task
    from mmq.evaluation.progress import sample_progress
    from mmq.evaluation.saved_outputs import SavedOutputs
    from mmq.evaluation.saving import evaluate_saving
    from mmq.models.chat_endpoint import check_decoding, connect
    from mmq.models.chat_template import parse_template
    from mmq.tracking import connect as connect_tracking
    from mmq.tracking import plain_run

    evaluator = _evaluator(options, plugin_options)  # reports a misspelled --endpoint first
    if not options.endpoint:
        raise InputError("endpoint: no address given; write --endpoint http://127.0.0.1:8080/v1")
    model = connect(
        options.endpoint,
        options.endpoint_model,
        options.timeout,
        concurrency=options.concurrency,
        retries=options.retries,
        system_prompt=options.system_prompt,
        template=parse_template(options.template),
    )
    protocol = evaluator.protocol(model.protocol(evaluator.answer_format))
    check_decoding(protocol.config)
    data = _draw(options, evaluator)
    evaluator.check()
    identity = registry.identity("evaluator", type(evaluator))
    task = Task(evaluator, data.samples, data.everything)
    facts = {
        "endpoint.url": model.url,
        "endpoint.model": model.model,
        "data.name": options.data,
        "data.fingerprint": data.fingerprint,
        "data.samples": len(data.samples),
        "data.limit": options.limit,
        "evaluator.name": options.task,
        "evaluator.version": identity.version,
        "evaluator.origin": identity.origin,
        **{f"evaluator.{k}": v for k, v in evaluator.effective_options(protocol).items()},
        "run.seed": options.seed,
        **({"endpoint.system_prompt": options.system_prompt} if options.system_prompt else {}),
        **({"endpoint.template": str(model.template)} if model.template else {}),
    }
    saved = SavedOutputs(home() / "outputs" / f"endpoint-{digest(_identity(facts))}.json")
    connect_tracking(options.experiment)
    with task, plain_run(options.experiment, f"evaluate {model.model}", facts, "endpoint") as run:
        started = time.perf_counter()
        evaluation = evaluate_saving(task, model, sample_progress(), saved, lambda: model.finished)
        run.log(metrics={"seconds/evaluate": time.perf_counter() - started})
        run.log_evaluation(evaluation, facts)
    saved.remove()
    click.echo("\n".join([f"{model.model} at {model.url}", *score_lines(evaluation.metrics)]))


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the outputs depend on: the source that ran is logged and decides nothing."""
    return {name: value for name, value in facts.items() if name != "evaluator.origin"}


def _evaluator(
    options: EvaluateOptions, plugin_options: Mapping[str, str]
) -> "GeneratingEvaluator":
    """The evaluator with its options; InputError for one that ranks instead of asking."""
    from mmq.contracts import Evaluator, GeneratingEvaluator

    classes = {"evaluator": registry.load_class("evaluator", single_task(options.task), Evaluator)}
    by_plugin = distribute(plugin_options, classes, [f.name for f in fields(options)])
    evaluator = build(classes["evaluator"], by_plugin["evaluator"])
    if not isinstance(evaluator, GeneratingEvaluator):
        raise InputError(
            f"task: {options.task} ranks pictures and texts, which the protocol does not support; "
            f"choose a task with generated answers, such as vqa or captioning"
        )
    return evaluator


def _draw(options: EvaluateOptions, evaluator: "Evaluator") -> "DrawnData":
    """The samples to score, checked."""
    from mmq.data.draw import draw_data

    names = {f.name for f in fields(TaskOptions)} & {f.name for f in fields(options)}
    drawing = TaskOptions(**{name: getattr(options, name) for name in names})
    data = draw_data(drawing, evaluator.samples_of or evaluator.task, calibrated=False)
    evaluator.check_samples(data.samples, data.everything)
    return data
