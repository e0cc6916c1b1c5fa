"""`mmq search`: the bit-allocation search from options to the printed front."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click

from mmq.allocation.allocation import BitAllocation, parse_bits
from mmq.allocation.parts import GRAINS
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import SIZE_AXIS_HELP, SizeAxis, parse_axis
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.config import EXPERIMENT_HELP, EvalOptions, option
from mmq.errors import InputError, unknown
from mmq.eval_spec import EvalSpec
from mmq.prepare import prepare
from mmq.studies.front import conclusion, front_text
from mmq.studies.run import check_name, safe_name
from mmq.studies.session import opened
from mmq.system.home import home
from mmq.tracking import StudyRun, connect, optional, register, study_run
from mmq_search.deadline import Deadline
from mmq_search.launchers.local import command_lines, end_with_overseer, is_worker
from mmq_search.loop import Search
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchOptions(EvalOptions):
    """An eval spec, and how long to search for its front."""

    bits: str = option("2,3,4,5,6,8,16", "Widths to choose from, for every component.")
    grain: str = option(
        "component", "What gets a width: component, group (thirds), type (attn, ff), or fine."
    )
    n_trials: int = option(40, "Allocations to try, those of earlier calls included.")
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    max_bpw: str = option("", "Answer: the best under so many bits per weight (of --size-axis).")
    max_size_gib: str = option("", "Answer: the best under so many GiB, scales counted.")
    min_score: str = option("", "Answer: the smallest with at least this score.")
    max_drop: str = option("", "Answer: the smallest within 1% (or 0.5 points) of unquantized.")
    timeout: str = option(
        "", "Ask no more so long after the start: seconds, 90m or 8h; empty: no limit."
    )
    workers: int = option(1, "Processes on this machine that search together.")
    prune: bool = option(
        True, "Stop a trial that is dominated beyond doubt on a part of its samples."
    )
    study: str = option("", "Name of the study; made from the eval_spec if empty.")
    experiment: str = option("", EXPERIMENT_HELP)


@click.command("search")
@options_from(SearchOptions)
def search(chosen: SearchOptions, extra: Mapping[str, str]) -> None:
    """Search per-component bit widths for the Pareto front of size against score.

    Run the same command again to resume. Run it on another machine with the same MMQ_STORAGE and
    MLFLOW_TRACKING_URI to join the search.
    """
    running = run_search(chosen, extra)
    if not is_worker():
        _print_results(running)


def run_search(chosen: SearchOptions, extra: Mapping[str, Any]) -> Search:
    """Check everything, open the study and search until enough allocations are evaluated."""
    for option_name in ("n_trials", "workers"):
        if getattr(chosen, option_name) < 1:
            shown = option_name.replace("_", "-")
            raise InputError(f"{shown}: {getattr(chosen, option_name)} is not at least 1")
    deadline = Deadline.parse(chosen.timeout)
    budget = Budget.parse(chosen.max_bpw, chosen.max_size_gib, chosen.min_score, chosen.max_drop)
    axis = parse_axis(chosen.size_axis)
    check_name(chosen.study)
    if chosen.grain not in GRAINS:
        raise unknown("grain", chosen.grain, GRAINS)
    bits = parse_bits(chosen.bits)
    prepared = prepare(
        chosen,
        extra,
        lambda parts: [BitAllocation.uniform(parts, b) for b in bits],
        pairs=chosen.grain != "component",
    )
    space = Space(tuple(prepared.skeleton.components), bits, chosen.grain)
    bounds = prepared.evaluator.bounds
    steering = SamplerSetup.of(space, prepared.skeleton, budget, prepared.quantizer, bounds, axis)
    eval_spec = prepared.eval_spec
    name = chosen.study or study_name(eval_spec, space, axis)
    connect(chosen.experiment)  # a store that cannot be used shows before the model is loaded
    study = SearchStudy(
        name, eval_spec.identity(), space, home(), chosen.seed, steering, is_worker()
    )
    with ExitStack() as stack:
        session = None
        if chosen.workers == 1:
            sessions = opened([prepared], chosen.experiment, quiet=is_worker())
            (session,) = stack.enter_context(sessions)
        else:
            prepared.task.close()  # what it checked with; the workers have their own
        run = open_run(study, chosen.experiment, eval_spec)
        if is_worker():
            end_with_overseer()
        else:
            study.remember(chosen.n_trials, deadline.until)
        log.info("Study %s: %s, %d trials", name, space.describe(), chosen.n_trials)
        found = Search(study, run, prepared, chosen.n_trials, deadline, chosen.prune)
        stack.enter_context(run)
        if session is not None:
            steering.measure(session.model, prepared, session.artifacts)
            found.alone(session)
        else:
            left = "" if deadline.left is None else f"{max(0.1, deadline.left):.1f}"
            fixed = {"study": name, "experiment": run.experiment, "timeout": left}
            device, count = prepared.device, chosen.workers
            found.together(command_lines(chosen, extra, device, count, **fixed))
    return found


def open_run(study: SearchStudy, experiment: str, eval_spec: EvalSpec) -> StudyRun:
    """The study's parent run, shared by all that work on it: the first one makes it."""
    made: list[StudyRun] = []  # before the database went away, if it does

    def open_once() -> StudyRun:
        if not made or study.parent not in (None, made[0].address):
            made[:] = [study_run(experiment, study.name, [eval_spec], study.parent)]
        study.log_to(made[0].address)
        return made[0]

    run = study.exclusively(open_once)
    run.parts, run.others = study.space.parts, study.may_have_company
    return run


def study_name(eval_spec: EvalSpec, space: Space, axis: SizeAxis = "stored") -> str:
    """A readable name that tells two eval specs, or two spaces, apart."""
    model = eval_spec.model.rstrip("/").split("/")[-1]
    readable = f"{model}-{eval_spec.evaluator}-{eval_spec.quantizer}"
    widths = "".join(str(b) if b < 10 else f"-{b}" for b in space.bits)
    grain = "" if space.grain == "component" else f"-{space.grain}"
    nominal = "" if axis == "stored" else f"-{axis}"
    return safe_name(f"{readable}{grain}-{widths}{nominal}-{eval_spec.key[:8]}")


def _print_results(found: Search) -> None:
    """The front, the answers, where they are registered and where to look."""
    study, run, results = found.study, found.run, found.results()
    selections = results.selections()
    said = conclusion(results, selections)
    if not study.space.has_baseline:
        said += "\n\nThe unquantized model was evaluated to compare with; it is no trial."
    if exceeding := len(study.steering.weighed):
        said += f"\n\nNot evaluated: {exceeding} that took more than planned and than the bound."
    if pruned := len(study.pruned()):
        said += f"\n\n{pruned} allocations were stopped early: they are dominated for sure."
    click.echo(f"\n{front_text(study.points(), study.score_name)}\n\n{said}\n")
    for selection in selections:
        if selection.point is not None:
            with optional(f"{selection.criterion}: the model is not registered"):
                click.echo(f"{selection.criterion}: mmq trial --run {register(run, selection)}")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {run.link()}")
    click.echo(f"Front:     {run.run_link()}")
