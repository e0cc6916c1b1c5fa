"""`mmq search`: its options, and the result as text or JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.config import (
    COMBINE_HELP,
    DRY_RUN_HELP,
    EXPERIMENT_HELP,
    GPUS_HELP,
    LAUNCHER_HELP,
    SIZE_AXIS_HELP,
    WORKERS_HELP,
    EvalOptions,
    option,
)
from mmq.errors import DryRun
from mmq.system.worker import is_worker


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
    combine: str = option("worst", COMBINE_HELP)
    objective: str = option(
        "score",
        "Maximize the score, or minimize flips: answers that differ from the unquantized model's.",
    )
    prune: bool = option(
        True, "Stop a trial early once a smaller model is certain to score better."
    )
    study: str = option(
        "", "Start or resume the study of this name; empty: named after the other options."
    )
    experiment: str = option("", EXPERIMENT_HELP)


@command("search", "mmq search --model embedded-llava --max-bpw 5 --n-trials 20", as_json=True)
@options_from(SearchOptions)
def search(options: SearchOptions, plugin_options: Mapping[str, str], as_json: bool) -> None:
    """Search per-component bit widths for the Pareto front of size against score.

    With --target, the space is what an export target supports, and the size that of its files.
    Run the same command again to resume. Run it on another machine with the same MMQ_STORAGE and
    MLFLOW_TRACKING_URI to join the search.
    """
    from mmq_search.result import print_document, print_plan, print_results
    from mmq_search.run import run_search

    try:
        running = run_search(options, plugin_options)
    except DryRun as plan:
        print_plan(str(plan), as_json)
        return
    if is_worker():
        return
    if as_json:
        print_document(running)
    else:
        print_results(running)
