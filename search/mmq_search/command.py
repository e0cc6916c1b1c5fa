"""`mmq search`: the bit-allocation search from options to the printed front."""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from tqdm import tqdm

from mmq.allocation import BitAllocation, parse_bits
from mmq.artifacts import Artifacts
from mmq.cli.options import options_from
from mmq.errors import InputError, TakenOver, unknown
from mmq.home import home
from mmq.model import LoadedModel
from mmq.parts import GRAINS
from mmq.prepare import EXPERIMENT_HELP, Prepared, QuestionOptions, option, prepare
from mmq.store import Store
from mmq.studies.front import Results, conclusion, front_text
from mmq.studies.run import MAX_FAILURES, check_name, record_trial
from mmq.tracking import StudyRun, connect, study_run, ui_command, unreachable
from mmq.trial import Question, TrialRecord, TrialSpec
from mmq_search.deadline import Deadline
from mmq_search.live import LiveView
from mmq_search.space import Space
from mmq_search.study import Asked, SearchStudy
from mmq_search.workers import command_lines, end_with_overseer, is_worker, oversee

log = logging.getLogger(__name__)
POLL = 1.0  # seconds between two looks at what the others do


@dataclass(frozen=True, slots=True)
class SearchOptions(QuestionOptions):
    """A question, and how long to search for its front."""

    bits: str = option("2,3,4,5,6,8,16", "Widths to choose from, for every component.")
    grain: str = option(
        "component", "What gets a width: component, group (thirds), type (attn, ff), or fine."
    )
    n_trials: int = option(40, "Evaluated allocations, those of earlier calls included.")
    timeout: str = option("", "Ask no more after seconds, 90m or 8h; empty: no limit.")
    workers: int = option(1, "Processes on this machine that search together.")
    study: str = option("", "Name of the study; made from the question if empty.")
    experiment: str = option("mmq", EXPERIMENT_HELP)


@click.command("search")
@options_from(SearchOptions)
def search(chosen: SearchOptions, extra: Mapping[str, str]) -> None:
    """Search the Pareto front of size against score over per-component bits.

    The same command again goes on where the last one stopped; on another machine, with the same
    MMQ_STORAGE and MLFLOW_TRACKING_URI, it joins in.
    """
    for option_name in ("n_trials", "workers"):
        if getattr(chosen, option_name) < 1:
            shown = option_name.replace("_", "-")
            raise InputError(f"{shown}: {getattr(chosen, option_name)} is not at least 1")
    deadline = Deadline.parse(chosen.timeout)
    check_name(chosen.study)
    if chosen.grain not in GRAINS:
        raise unknown("grain", chosen.grain, GRAINS)
    bits = parse_bits(chosen.bits)
    prepared = prepare(
        chosen, extra, lambda parts: [BitAllocation.uniform(parts, b) for b in bits]
    )
    space = Space(tuple(prepared.skeleton.components), bits, chosen.grain)
    question = prepared.question
    name = chosen.study or study_name(question, space)
    connect(chosen.experiment)  # a store that cannot be used shows before the model is loaded
    study = SearchStudy(name, question.facts(), space, home(), chosen.seed)
    alone = chosen.workers == 1
    model = prepared.load() if alone else None
    run = open_run(study, chosen.experiment, question)
    if is_worker():
        end_with_overseer()
    else:
        study.remember(chosen.n_trials, deadline.until)
    log.info("Study %s: %s, %d trials", name, space.describe(), chosen.n_trials)
    try:
        with run:
            if model is not None:
                _search(study, run, model, prepared, chosen.n_trials, deadline)
            else:
                _search_together(study, run, prepared, chosen, extra, deadline)
    finally:
        prepared.evaluator.close()
    if not is_worker():
        _say_where_to_look(study, run, prepared)


def open_run(study: SearchStudy, experiment: str, question: Question) -> StudyRun:
    """The study's parent run, shared by all that work on it: the first one makes it."""
    with study.locked():
        run = study_run(experiment, study.name, [question], study.parent)
        study.parent = run.address
    run.parts, run.others = study.space.parts, study.others_at_work
    return run


def study_name(question: Question, space: Space) -> str:
    """A readable name that tells two questions, or two spaces, apart."""
    model = question.model.rstrip("/").split("/")[-1]
    readable = f"{model}-{question.evaluator}-{question.quantizer}"
    widths = "".join(str(b) if b < 10 else f"-{b}" for b in space.bits)
    grain = "" if space.grain == "component" else f"-{space.grain}"
    return re.sub(r"[^\w.-]", "-", f"{readable}{grain}-{widths}-{question.key[:8]}")


def _target(study: SearchStudy, n_trials: int) -> int:
    """How many allocations to evaluate; says so where some are already."""
    done, target = len(study.evaluated()), min(n_trials, len(study.space))
    if done and not is_worker():
        state = "is done" if done >= target else "goes on"
        click.echo(f"Study {study.name} {state}: {done} of {target} allocations are evaluated.")
    return target


def _search_together(
    study: SearchStudy,
    run: StudyRun,
    prepared: Prepared,
    chosen: SearchOptions,
    extra: Mapping[str, str],
    deadline: Deadline,
) -> None:
    """Let workers search, and log the front when they have."""
    target = _target(study, chosen.n_trials)
    left = "" if deadline.left is None else f"{max(0.1, deadline.left):.1f}"
    fixed = {"study": study.name, "experiment": run.experiment, "timeout": left}
    commands = command_lines(chosen, extra, prepared.device, chosen.workers, **fixed)
    live = LiveView(run, lambda: _results(study, prepared))
    # looking for others settles what a killed worker left
    with live.finishing(last=lambda: not study.others_at_work()):
        if len(study.evaluated()) < target:
            codes = oversee(commands, lambda: len(study.evaluated()), target)
            if all(codes):
                raise RuntimeError(f"all workers ended early, with exit codes {codes}")


def _search(
    study: SearchStudy,
    run: StudyRun,
    model: LoadedModel,
    prepared: Prepared,
    n_trials: int,
    deadline: Deadline,
) -> None:
    """Ask, run and tell until `n_trials` allocations are evaluated; the front is logged anyhow."""
    artifacts = prepared.artifacts(Store(home() / "store"), quiet=is_worker())
    failures, idle = 0, False
    target = _target(study, n_trials)
    live = LiveView(run, lambda: _results(study, prepared))
    with (
        live.finishing(last=lambda: not is_worker() and not study.others_at_work()),
        tqdm(total=target, desc="search", unit="trial", disable=is_worker()) as bar,
    ):
        bar.update(len(study.evaluated()))
        while len(study.evaluated()) < target and not deadline.passed:
            if (asked := study.ask(target)) is None:
                if idle:  # nothing is left, and nobody's trial can come back
                    break
                idle = not study.others_at_work()
                time.sleep(0 if idle else POLL)
                continue
            idle = False
            try:
                _run_one(study, run, model, prepared, artifacts, asked)
            except TakenOver as error:
                tqdm.write(f"Trial {asked.allocation}: {error}")
            except Exception as error:
                failures += 1
                tqdm.write(f"Trial {asked.allocation} failed: {type(error).__name__}: {error}")
                if failures == MAX_FAILURES:
                    raise
            else:
                failures = 0
                live.update()
                bar.set_postfix_str(f"front: {live.size}")
            bar.update(len(study.evaluated()) - bar.n)


def _results(study: SearchStudy, prepared: Prepared) -> Results:
    return study.results([sample.image_id for sample in prepared.samples])


def _run_one(
    study: SearchStudy,
    run: StudyRun,
    model: LoadedModel,
    prepared: Prepared,
    artifacts: Artifacts,
    asked: Asked,
) -> None:
    """One trial through mmq's path; what ends it early is told to Optuna too."""
    spec = TrialSpec(prepared.question, asked.allocation)

    def keep(record: TrialRecord, run_id: str) -> Mapping[str, Any]:
        study.check_claim(asked)
        return study.records.keep(record, run_id)

    try:
        with study.working(asked):
            record_trial(
                run,
                spec,
                model,
                artifacts,
                prepared,
                keep=keep,
                tell=lambda: study.tell(asked),
                quiet=is_worker(),
                **{"mmq.optuna_trial": str(asked.trial.number)},
            )
    except BaseException as error:
        study.give_up(asked, retry=isinstance(error, KeyboardInterrupt) or unreachable(error))
        raise


def _say_where_to_look(study: SearchStudy, run: StudyRun, prepared: Prepared) -> None:
    said = conclusion(_results(study, prepared))
    click.echo(f"\n{front_text(study.points(), study.score_name)}\n\n{said}\n")
    if command := ui_command():
        click.echo(f"Browse it: {command}")
    click.echo(f"Open:      {run.link()}")
    click.echo(f"Front:     {run.run_link()}")
