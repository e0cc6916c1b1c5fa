"""`mmq search`: the bit-allocation search from options to the printed front."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import click
from tqdm import tqdm

from mmq.allocation import BitAllocation, parse_bits
from mmq.analysis.fronts import pareto_front
from mmq.artifacts import Artifacts
from mmq.cli.options import options_from
from mmq.errors import InputError, unknown
from mmq.home import home
from mmq.model import LoadedModel
from mmq.parts import GRAINS
from mmq.prepare import EXPERIMENT_HELP, Prepared, QuestionOptions, option, prepare
from mmq.store import Store
from mmq.studies.front import Results, conclusion, description, front_text, log_front
from mmq.studies.run import MAX_FAILURES, check_name, record_trial
from mmq.tracking import StudyRun, connect, study_run, ui_command
from mmq.trial import Question, TrialSpec
from mmq_search.finer import ROUND, Additive
from mmq_search.space import Space
from mmq_search.study import Asked, SearchStudy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchOptions(QuestionOptions):
    """A question, and how long to search for its front."""

    bits: str = option("2,3,4,5,6,8,16", "Widths to choose from, for every component.")
    grain: str = option(
        "component", "What gets a width: component, group (thirds), type (attn, ff), or fine."
    )
    n_trials: int = option(40, "Evaluated allocations, those of earlier calls included.")
    study: str = option("", "Name of the study; made from the question if empty.")
    experiment: str = option("mmq", EXPERIMENT_HELP)


@click.command("search")
@options_from(SearchOptions)
def search(chosen: SearchOptions, extra: Mapping[str, str]) -> None:
    """Search the Pareto front of size against score over per-component bits.

    The same command again goes on where the last one stopped.
    """
    if chosen.n_trials < 1:
        raise InputError(f"n-trials: {chosen.n_trials} is not at least 1")
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
    study = SearchStudy(name, question.facts(), space, home(), chosen.seed)
    connect(chosen.experiment)  # a store that cannot be used shows before the model is loaded
    model = prepared.load()
    run = study_run(chosen.experiment, name, [question], study.parent)
    study.parent, run.parts = run.address, space.parts
    log.info("Study %s: %s, %d trials", name, space.describe(), chosen.n_trials)
    try:
        with run:
            _search(study, run, model, prepared, chosen.n_trials)
    finally:
        prepared.evaluator.close()
    _say_where_to_look(study, run, prepared)


def study_name(question: Question, space: Space) -> str:
    """A readable name that tells two questions, or two spaces, apart."""
    model = question.model.rstrip("/").split("/")[-1]
    readable = f"{model}-{question.evaluator}-{question.quantizer}"
    widths = "".join(str(b) if b < 10 else f"-{b}" for b in space.bits)
    grain = "" if space.grain == "component" else f"-{space.grain}"
    return re.sub(r"[^\w.-]", "-", f"{readable}{grain}-{widths}-{question.key[:8]}")


def _search(
    study: SearchStudy,
    run: StudyRun,
    model: LoadedModel,
    prepared: Prepared,
    n_trials: int,
) -> None:
    """Ask, run and tell until `n_trials` allocations are evaluated; the front is logged anyhow."""
    artifacts = prepared.artifacts(Store(home() / "store"))
    additive = Additive.measured(study.space, model, prepared, artifacts)
    failures = 0
    done, target = len(study.evaluated()), min(n_trials, len(study.space))
    if done:
        state = "is done" if done >= target else "goes on"
        click.echo(f"Study {study.name} {state}: {done} of {target} allocations are evaluated.")
    try:
        with tqdm(total=target, initial=done, desc="search", unit="trial") as bar:
            while done < target and (asked := next_trial(study, additive)) is not None:
                try:
                    _run_one(study, run, model, prepared, artifacts, asked)
                except Exception as error:
                    failures += 1
                    tqdm.write(f"Trial {asked.allocation} failed: {type(error).__name__}: {error}")
                    if failures == MAX_FAILURES:
                        raise
                    continue
                done, failures = done + 1, 0
                bar.update()
                bar.set_postfix_str(f"front: {len(pareto_front(study.points()))}")
                run.log(metrics={"trials": done}, step=done)
                if done == 1 or done % 5 == 0:
                    _describe(study, run, prepared)
    finally:
        if study.evaluated():
            _describe(study, run, prepared)
            log_front(run, _results(study, prepared))


def next_trial(study: SearchStudy, additive: Additive | None) -> Asked | None:
    """The next allocation; over finer parts a new round of additive solutions is due first."""
    if additive is not None and not study.waiting:
        scores = {BitAllocation.parse(point.allocation): point.score for point in study.points()}
        study.lead(additive.propose(scores, ROUND))
    return study.ask()


def _results(study: SearchStudy, prepared: Prepared) -> Results:
    return study.results([sample.image_id for sample in prepared.samples])


def _describe(study: SearchStudy, run: StudyRun, prepared: Prepared) -> None:
    """Bring the parent run's description and chart view up to date."""
    run.describe(description(_results(study, prepared)))
    run.save_view(study.space.parts, study.score_name)


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
    try:
        record_trial(
            run,
            spec,
            model,
            artifacts,
            prepared,
            keep=study.records.keep,
            tell=lambda: study.tell(asked),
            **{"mmq.optuna_trial": str(asked.trial.number)},
        )
    except BaseException as error:
        study.give_up(asked, retry=isinstance(error, KeyboardInterrupt))
        raise


def _say_where_to_look(study: SearchStudy, run: StudyRun, prepared: Prepared) -> None:
    said = conclusion(_results(study, prepared))
    click.echo(f"\n{front_text(study.points(), study.score_name)}\n\n{said}\n")
    if command := ui_command():
        click.echo(f"Browse it: {command}")
    click.echo(f"Open:      {run.link()}")
    click.echo(f"Front:     {run.run_link()}")
