"""One search, from the options to the evaluated front."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from mmq.allocation.allocation import TABLE_RULE, parse_bits
from mmq.allocation.parts import GRANULARITIES
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import SizeAxis, parse_axis
from mmq.contracts import LaunchRequest
from mmq.errors import InputError, unknown
from mmq.eval_spec import EvalSpec
from mmq.prepare import Prepared
from mmq.studies.joint_tasks import prepare_tasks
from mmq.studies.names import check_name, safe_name
from mmq.studies.objectives import Objective, bounds_of, check_objective, parse_objective
from mmq.studies.request_text import command_line
from mmq.studies.session import opened, show_prompt
from mmq.studies.work_list import WorkList
from mmq.studies.workers import (
    Placement,
    commands,
    ending_at,
    for_workers,
    in_study,
    placement,
)
from mmq.system import worker
from mmq.system.home import home
from mmq.system.progress import notify
from mmq.system.worker import end_with_launcher, is_worker
from mmq.task_names import has_several
from mmq.tracking import StudyRun, connect, study_run
from mmq_search.command import SearchOptions
from mmq_search.deadline import Deadline
from mmq_search.loop import Search
from mmq_search.plan import plan_text
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from mmq_search.target_search import TargetSearch, limited_space, parse_target, supported_options

log = logging.getLogger(__name__)


def run_search(options: SearchOptions, plugin_options: Mapping[str, Any]) -> Search:
    """Check everything, open the study and search until enough allocations are evaluated."""
    if options.n_trials < 1:
        raise InputError(f"n-trials: {options.n_trials} is not at least 1")
    place, plugin_options = placement(options, plugin_options)
    options = for_workers(options, place)
    deadline = Deadline.parse(options.timeout).no_later(worker.until())
    budget, axis, objective = _bounds(options)
    check_name(options.study)
    if options.granularity not in GRANULARITIES:
        raise unknown("granularity", options.granularity, GRANULARITIES)
    prepared, space, search = _prepared(options, plugin_options)
    check_objective(objective, prepared)
    costs = None if search is None else search.costs()
    setup = SamplerSetup.of(
        space, prepared.skeleton, budget, prepared.quantizer, bounds_of(objective, prepared), axis,
        costs, objective,
    )  # fmt: skip
    eval_spec = prepared.eval_spec
    name = options.study or study_name(eval_spec, setup, options.target, options.cost)
    if not is_worker():
        notify(plan_text(setup, prepared, options.n_trials), important=options.dry_run)
    request = None
    if not place.is_alone:
        request = _request(place, name, options, plugin_options, deadline)
    connect(options.experiment)  # an unusable store is reported before the model is loaded
    if search is not None and search.request.timed:
        setup.costs = search.timed_costs()
        setup.check_budget()
    study = SearchStudy(
        name, eval_spec.identity(), space, home(), options.seed, setup, is_worker()
    )
    if is_worker():
        end_with_launcher()
        _check_shared(study)
    with ExitStack() as stack:
        # listed while it loads the model, or follows its workers, too
        stack.enter_context(WorkList(study.storage.database, name).present())
        session = None
        if request is None:
            sessions = opened([prepared], options.experiment, quiet=is_worker())
            (session,) = stack.enter_context(sessions)
        else:
            show_prompt(eval_spec)
        run = open_run(study, options.experiment, eval_spec)
        run.request = command_line("search", options, plugin_options)
        if not is_worker():
            study.save_request(options.n_trials, deadline.until)
        log.info("Study %s: %s, %d trials", name, space.describe(), options.n_trials)
        running = Search(study, run, prepared, options.n_trials, deadline, options.prune, search)
        stack.enter_context(run)
        if session is not None:
            setup.measure(session.model, prepared, session.artifacts)
            running.alone(session)
        elif request is not None:
            running.together(place.launcher, in_study(request, run.experiment, run.run_id))
        if not is_worker():
            running.confirm()
    return running


def _request(
    place: Placement,
    name: str,
    options: SearchOptions,
    plugin_options: Mapping[str, Any],
    deadline: Deadline,
) -> LaunchRequest:
    """What the launcher is to start: workers that search until the command's deadline."""
    left = "" if deadline.left is None else f"{max(0.1, deadline.left):.1f}"
    fixed = {"study": name, "timeout": left}
    lines = commands("search", options, plugin_options, place, **fixed)
    return ending_at(place.request(name, lines), deadline.until)


def _check_shared(study: SearchStudy) -> None:
    """InputError in a worker that would search by itself, unnoticed, in another database."""
    if (expected := worker.study_run()) and (study.parent is None or study.parent[1] != expected):
        raise InputError(
            f"worker on {worker.place()}: {study.storage.database.address} does not have the "
            f"study {study.name!r} of the command that launched the worker. Set MMQ_STORAGE to "
            f"the same database on all machines, or MMQ_HOME to the same folder on one."
        )


def _bounds(options: SearchOptions) -> tuple[Budget, SizeAxis, Objective]:
    """The budget, the size axis and the objective; InputError for bounds on something else."""
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
    objective = parse_objective(options.objective)
    return budget if objective == "score" else budget.for_flips(), axis, objective


def _prepared(
    options: SearchOptions, plugin_options: Mapping[str, Any]
) -> tuple[Prepared, Space, TargetSearch | None]:
    """The checked eval spec and its space, limited to what the target supports, if any."""
    bits = parse_bits(options.bits)
    request, plugin_options = parse_target(options.target, options.cost, plugin_options)
    pairs, combine = options.granularity != "component", options.combine
    if request is None:
        prepared = prepare_tasks(
            options,
            plugin_options,
            combine,
            lambda parts: [rule for _, rule in Space.of(parts, bits).rules()],
            pairs,
        )
        space = Space.of(prepared.skeleton.components, bits, options.granularity)
        if space.limits and not is_worker():
            notify(f"{space.describe()}: {TABLE_RULE}")
        return prepared, space, None
    support, plugin_options = supported_options(request, options, plugin_options, bits)
    prepared = prepare_tasks(
        options, plugin_options, combine, lambda parts: support.allocations(), pairs
    )
    space = limited_space(support, options.granularity)
    if (text := support.report(request.name)) and not is_worker():
        notify(text)
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
    eval_spec: EvalSpec, setup: SamplerSetup, target: str = "", cost: str = "bytes"
) -> str:
    """A readable name, different for every eval spec, space, objective, target and cost."""
    space, axis = setup.space, setup.axis
    model = eval_spec.model.rstrip("/").split("/")[-1]
    readable = f"{model}-{eval_spec.evaluator}-{eval_spec.quantizer}"
    widths = "".join(str(b) if b < 10 else f"-{b}" for b in space.bits)
    granularity = "" if space.granularity == "component" else f"-{space.granularity}"
    nominal = "" if axis == "stored" else f"-{axis}"
    aim = (f"-{target}" if target else "") + ("" if cost == "bytes" else f"-{cost}")
    aim += "" if setup.objective == "score" else f"-{setup.objective}"
    return safe_name(f"{readable}{granularity}-{widths}{nominal}{aim}-{eval_spec.key[:8]}")
