"""`mmq search`: search bit allocations, from the options to the printed front."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click

from mmq.allocation.allocation import TABLE_RULE, parse_bits
from mmq.allocation.parts import GRANULARITIES
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import SIZE_AXIS_HELP, SizeAxis, parse_axis
from mmq.analysis.joint import parse_combine
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.config import (
    DRY_RUN_HELP,
    EXPERIMENT_HELP,
    GPUS_HELP,
    LAUNCHER_HELP,
    WORKERS_HELP,
    EvalOptions,
    option,
)
from mmq.errors import InputError, unknown
from mmq.eval_spec import EvalSpec
from mmq.prepare import Prepared, prepare
from mmq.studies.front import conclusion, front_text
from mmq.studies.joint_tasks import prepare_tasks
from mmq.studies.names import check_name, safe_name
from mmq.studies.request_text import command_line
from mmq.studies.session import opened, show_prompt
from mmq.studies.work_list import WorkList
from mmq.studies.workers import commands, for_workers, in_experiment, placement
from mmq.system.home import home
from mmq.system.worker import end_with_launcher, is_worker
from mmq.task_names import has_several
from mmq.tracking import StudyRun, best_effort, connect, register, study_run
from mmq_search.deadline import Deadline
from mmq_search.loop import Search
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from mmq_search.target_search import TargetSearch, limited_space, parse_target, supported_options

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchOptions(EvalOptions):
    """What to evaluate, over which search space, for how long."""

    bits: str = option("2,3,4,5,6,8,16", "Search these bit widths (e.g. 3,4,8).")
    granularity: str = option(
        "component",
        "Search one width per component, group (third of its blocks), type (attn, ff), or both "
        "(fine).",
    )
    n_trials: int = option(
        40, "Evaluate this many allocations in all, those of earlier commands included (e.g. 40)."
    )
    target: str = option(
        "",
        "Search what this export target supports, by the bytes of its files (e.g. gguf, "
        "compressed-tensors:vllm).",
    )
    cost: str = option(
        "bytes",
        "Search score against bytes, or against latency: the time per answer in the target's "
        "engine.",
    )
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    max_bpw: str = option(
        "", "Select the best model of at most this many bits per weight (e.g. 4.5)."
    )
    max_size_gib: str = option(
        "",
        "Select the best model of at most this many GiB, scales included; with --target, all its "
        "files (e.g. 1.5).",
    )
    max_latency_ms: str = option(
        "", "Select the best model that answers in at most this many ms (e.g. 800)."
    )
    min_score: str = option("", "Select the smallest model with at least this score (e.g. 75).")
    max_drop: str = option(
        "",
        "Select the smallest model that loses at most this much score (e.g. 1% or 0.5).",
    )
    max_flips: str = option(
        "",
        "Select among models that change at most this share of the unquantized answers (e.g. 2%).",
    )
    timeout: str = option("", "Stop starting new trials after this long (e.g. 5400, 90m, 8h).")
    workers: int = option(1, WORKERS_HELP)
    launcher: str = option("local", LAUNCHER_HELP)
    gpus_per_worker: int = option(0, GPUS_HELP)
    dry_run: bool = option(False, DRY_RUN_HELP)
    combine: str = option(
        "worst",
        "Of several tasks, maximize the worst or the mean share of the unquantized scores.",
    )
    prune: bool = option(
        True, "Stop a trial early once a smaller model is certain to score better."
    )
    study: str = option(
        "", "Start or resume the study of this name; empty: named after the other options."
    )
    experiment: str = option("", EXPERIMENT_HELP)


@click.command("search")
@options_from(SearchOptions)
def search(options: SearchOptions, plugin_options: Mapping[str, str]) -> None:
    """Search per-component bit widths for the Pareto front of size against score.

    With --target, the space is what an export target supports, and the size that of its files.
    Run the same command again to resume. Run it on another machine with the same MMQ_STORAGE and
    MLFLOW_TRACKING_URI to join the search.
    """
    running = run_search(options, plugin_options)
    if not is_worker():
        _print_results(running)


def run_search(options: SearchOptions, plugin_options: Mapping[str, Any]) -> Search:
    """Check everything, open the study and search until enough allocations are evaluated."""
    if options.n_trials < 1:
        raise InputError(f"n-trials: {options.n_trials} is not at least 1")
    place, plugin_options = placement(options, plugin_options)
    options = for_workers(options, place)
    deadline = Deadline.parse(options.timeout)
    budget, axis = _bounds(options)
    check_name(options.study)
    if options.granularity not in GRANULARITIES:
        raise unknown("granularity", options.granularity, GRANULARITIES)
    prepared, space, search = _prepared(options, plugin_options)
    bounds, skeleton = prepared.bounds, prepared.skeleton
    costs = None if search is None else search.costs()
    setup = SamplerSetup.of(space, skeleton, budget, prepared.quantizer, bounds, axis, costs)
    eval_spec = prepared.eval_spec
    name = options.study or study_name(eval_spec, space, axis, options.target, options.cost)
    request = None
    if not place.is_alone:
        left = "" if deadline.left is None else f"{max(0.1, deadline.left):.1f}"
        fixed = {"study": name, "timeout": left}
        lines = commands("search", options, plugin_options, place, **fixed)
        request = place.request(name, lines)
    connect(options.experiment)  # an unusable store is reported before the model is loaded
    if search is not None and search.request.timed:
        costs = search.timed_costs()
        setup = SamplerSetup.of(space, skeleton, budget, prepared.quantizer, bounds, axis, costs)
    study = SearchStudy(
        name, eval_spec.identity(), space, home(), options.seed, setup, is_worker()
    )
    with ExitStack() as stack:
        session = None
        if request is None:
            sessions = opened([prepared], options.experiment, quiet=is_worker())
            (session,) = stack.enter_context(sessions)
        else:
            show_prompt(eval_spec)
        run = open_run(study, options.experiment, eval_spec)
        run.request = command_line("search", options, plugin_options)
        if is_worker():
            end_with_launcher()
        else:
            study.save_request(options.n_trials, deadline.until)
        log.info("Study %s: %s, %d trials", name, space.describe(), options.n_trials)
        running = Search(study, run, prepared, options.n_trials, deadline, options.prune, search)
        stack.enter_context(run)
        if session is not None:
            setup.measure(session.model, prepared, session.artifacts)
            with WorkList(study.storage.database, name).present():
                running.alone(session)
        elif request is not None:
            running.together(place.launcher, in_experiment(request, run.experiment))
        if not is_worker():
            running.confirm()
    return running


def _bounds(options: SearchOptions) -> tuple[Budget, SizeAxis]:
    """The budget and the size axis; InputError for bounds that the search does not compare."""
    budget = Budget.parse(
        options.max_bpw,
        options.max_size_gib,
        options.min_score,
        options.max_drop,
        options.max_latency_ms,
        options.max_flips,
    )
    if has_several(options.task) and (budget.min_score is not None or not budget.is_share):
        raise InputError(
            "min-score, max-drop: the scores of several tasks have different units; give a "
            "percentage of each, such as --max-drop 1%"
        )
    if budget.max_ms is not None and options.cost != "latency":
        raise InputError("max-latency-ms: answers are timed with --target gguf --cost latency")
    axis = parse_axis(options.size_axis)
    if options.target and axis != "stored":
        raise InputError(
            f"size-axis: a search for a target compares its files, not {axis} sizes; leave one out"
        )
    return budget, axis


def _prepared(
    options: SearchOptions, plugin_options: Mapping[str, Any]
) -> tuple[Prepared, Space, TargetSearch | None]:
    """The checked eval spec and its space, limited to what the target supports, if any."""
    bits = parse_bits(options.bits)
    request, plugin_options = parse_target(options.target, options.cost, plugin_options)
    pairs = options.granularity != "component"
    if request is None:
        prepared = prepare_tasks(
            options,
            plugin_options,
            parse_combine(options.combine),
            lambda parts: Space.of(parts, bits).diagonal(),
            pairs,
        )
        space = Space.of(prepared.skeleton.components, bits, options.granularity)
        if space.limits and not is_worker():
            click.echo(f"{space.describe()}: {TABLE_RULE}")
        return prepared, space, None
    support, plugin_options = supported_options(request, options, plugin_options, bits)
    prepared = prepare(options, plugin_options, lambda parts: support.allocations(), pairs)
    space = limited_space(support, options.granularity)
    if (text := support.report(request.name)) and not is_worker():
        click.echo(text)
    return prepared, space, TargetSearch(request, prepared, space, is_worker())


def open_run(study: SearchStudy, experiment: str, eval_spec: EvalSpec) -> StudyRun:
    """The study's parent run, which all its processes share: the first one creates it."""
    created: list[StudyRun] = []  # by an attempt that an outage of the database interrupted

    def open_once() -> StudyRun:
        if not created or study.parent not in (None, created[0].address):
            created[:] = [study_run(experiment, study.name, [eval_spec], study.parent)]
        study.save_parent(created[0].address)
        return created[0]

    run = study.exclusively(open_once)
    run.parts, run.has_others = study.space.parts, study.may_have_others
    return run


def study_name(
    eval_spec: EvalSpec,
    space: Space,
    axis: SizeAxis = "stored",
    target: str = "",
    cost: str = "bytes",
) -> str:
    """A readable name, different for every eval spec, space, target and cost."""
    model = eval_spec.model.rstrip("/").split("/")[-1]
    readable = f"{model}-{eval_spec.evaluator}-{eval_spec.quantizer}"
    widths = "".join(str(b) if b < 10 else f"-{b}" for b in space.bits)
    granularity = "" if space.granularity == "component" else f"-{space.granularity}"
    nominal = "" if axis == "stored" else f"-{axis}"
    aim = (f"-{target}" if target else "") + ("" if cost == "bytes" else f"-{cost}")
    return safe_name(f"{readable}{granularity}-{widths}{nominal}{aim}-{eval_spec.key[:8]}")


def _print_results(running: Search) -> None:
    """Print the front, the selected allocations, where they are registered and where to look."""
    study, run, results = running.study, running.run, running.results()
    selections = results.selections()
    text = conclusion(results, selections)
    if not study.space.has_baseline:
        text += "\n\nThe unquantized model was evaluated for comparison; it is not a trial."
    if too_large := len(study.setup.measured_sizes):
        text += f"\n\nNot evaluated: {too_large}, larger than planned and than the bound."
    if pruned := len(study.pruned()):
        text += f"\n\nPruned: {pruned} allocations that a smaller model certainly dominates."
    click.echo(f"\n{front_text(study.points(), study.score_name)}\n\n{text}\n")
    if running.confirmed:
        click.echo("\n".join(["Timed as whole models:", *map(str, running.confirmed), ""]))
    for selection in selections:
        if selection.point is not None:
            with best_effort(f"{selection.criterion}: the model is not registered"):
                click.echo(f"{selection.criterion}: mmq trial --run {register(run, selection)}")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {run.link()}")
    click.echo(f"Front:     {run.plot_link()}")
    click.echo(f"Run:       {run.run_link()}")
