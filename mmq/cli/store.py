"""`mmq store`: list, verify and prune what is stored in mmq's home."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from mmq.analysis.tables import aligned
from mmq.artifacts import unlogged
from mmq.artifacts.inventory import items
from mmq.artifacts.inventory import remove as remove_stored
from mmq.artifacts.store import CODE_ROOMS, Entry, Store
from mmq.cli.options import no_leftovers
from mmq.contracts import registry
from mmq.errors import InputError
from mmq.system.home import home
from mmq.system.sealed import NotReadable
from mmq.system.secrets import redact
from mmq.system.versions import room_versions

MIB = 1024**2
DAY = 24 * 3600


@click.group("store", invoke_without_command=True)
@click.pass_context
def store(context: click.Context) -> None:
    """List and prune quantized blocks, verify stored files, and list unlogged runs."""
    if context.invoked_subcommand is None:
        if context.args:
            names = ", ".join(sorted(store.commands))
            raise InputError(f"store: {context.args[0]!r} is not a command; choose from {names}")
        context.invoke(list_entries)


def the_store() -> Store:
    """The store in mmq's home, shared at MMQ_STORE if that is set."""
    return Store.open()


@store.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON, one row per file.")
@click.pass_context
def list_entries(context: click.Context, as_json: bool = False) -> None:
    """One line per model, component and quantizer: widths, blocks, size, age."""
    no_leftovers(context)
    entries = the_store().entries()
    if as_json:
        rows = [
            {**entry.key, "file": entry.path.name, "bytes": entry.size, "problem": entry.problem}
            for entry in entries
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    if not entries:
        click.echo(f"The store {the_store().root} is empty.")
    else:
        click.echo(table(entries))
        total = sum(entry.size for entry in entries) / MIB
        click.echo(f"\n{len(entries)} blocks, {total:.1f} MiB in {the_store().root}")
    if (remote := the_store().remote) is not None:
        sizes = remote.sizes()
        total = sum(sizes.values()) / MIB
        click.echo(f"{len(sizes)} blocks, {total:.1f} MiB shared at {redact(remote.url)}")
    if text := unlogged.summary():
        click.echo(text)


@store.command("verify")
@click.option(
    "--remove", is_flag=True, help="Remove damaged files; they are computed again when needed."
)
@click.pass_context
def verify(context: click.Context, remove: bool) -> None:
    """Compare every file in mmq's home with the checksum that it was stored with.

    Quantized blocks, calibration snapshots, outputs of stages, sensitivity profiles, records of
    trials, runs that wait to be logged, and the embedded data.
    """
    from mmq.system.progress import progress_bar

    no_leftovers(context)
    every = list(items(home()))
    sound: Counter[str] = Counter()
    counts = Counter(item.kind for item in every)
    damaged = unreadable = 0
    for item in progress_bar(every, desc="verify", unit="file", leave=False):
        problem = item.problem()
        sound[item.kind] += problem is None
        if problem is None:
            continue
        name = item.path.relative_to(home())
        if isinstance(problem, NotReadable):
            unreadable += 1
            click.echo(f"{name}: not readable: {problem}")
        elif remove and remove_stored(item.path):
            click.echo(f"{name}: {problem}; removed")
        else:
            damaged += 1
            click.echo(f"{name}: {problem}" + ("; not removed" if remove else ""))
    for kind in ("blocks", *(kind for kind in counts if kind != "blocks")):
        click.echo(f"{sound[kind]} of {counts[kind]} {kind} are intact.")
    problems = []
    if damaged:
        hint = "remove them by hand" if remove else "--remove removes them"
        problems.append(f"{damaged} files are damaged; {hint}")
    if unreadable:
        problems.append(f"{unreadable} files are not readable; correct their permissions")
    if problems:
        raise InputError(f"store: {'; '.join(problems)}")


@store.command("stuck")
@click.option("--retry", is_flag=True, help="Log them again now.")
@click.option("--remove", is_flag=True, help="Remove their files permanently.")
@click.pass_context
def stuck(context: click.Context, retry: bool, remove: bool) -> None:
    """List runs that are waiting to be logged, and runs that could not be logged."""
    no_leftovers(context)
    if retry and remove:
        raise InputError("stuck: give either --retry or --remove")
    if retry:
        for run in unlogged.stuck():
            unlogged.retry(run)
        _log_now()
    elif remove:
        for run in unlogged.stuck():
            unlogged.remove(run)
            click.echo(f"{run.path}: removed")
    for run_id, path in unlogged.waiting():
        click.echo(f"Run {run_id} is waiting to be logged: {path}")
    for run in unlogged.stuck():
        click.echo(f"Run {run.run_id} could not be logged: {run.path}: {run.reason}")
    if not unlogged.summary():
        click.echo("No runs are waiting to be logged.")


def _log_now() -> None:
    from mmq.tracking import log_unlogged

    log_unlogged()


@store.command("prune")
@click.option("--quantizer", default="", help="Only remove blocks of this quantizer (e.g. gptq).")
@click.option(
    "--model", default="", help="Only remove blocks whose model fingerprint starts like this."
)
@click.option("--component", default="", help="Only remove blocks of this component (e.g. vit).")
@click.option(
    "--older-than",
    type=float,
    default=0.0,
    help="Only remove blocks older than this many days (e.g. 30).",
)
@click.option(
    "--stale",
    is_flag=True,
    help="Only remove blocks of quantizer versions that are no longer installed.",
)
@click.option("--everything", is_flag=True, help="Remove all blocks.")
@click.option(
    "--yes", is_flag=True, help="Remove the blocks; without it, print what would be removed."
)
@click.pass_context
def prune(context: click.Context, /, yes: bool, everything: bool, **filters: Any) -> None:
    """Remove the selected blocks; they are computed again when a trial needs them.

    Selects among the blocks on this machine; those removed are also removed from MMQ_STORE.
    """
    no_leftovers(context)
    if everything == any(filters.values()):
        raise InputError(
            "prune: select blocks with --quantizer, --model, --component, --older-than or "
            "--stale, or give --everything"
        )
    entries = [entry for entry in the_store().entries() if _matches(entry, **filters)]
    size = sum(entry.size for entry in entries) / MIB
    if yes:
        stay = [entry for entry in entries if not remove_stored(entry.path)]
        if (remote := the_store().remote) is not None:
            for entry in entries:
                remote.remove(entry.path.name)
        for entry in stay:
            click.echo(
                f"{entry.path.name}: not removed: it is a folder, or removal is not permitted"
            )
        removed = len(entries) - len(stay)
        size -= sum(entry.size for entry in stay) / MIB
        click.echo(f"{removed} blocks removed, {size:.1f} MiB.")
        return
    if entries:
        click.echo(table(entries) + "\n")
    click.echo(f"{len(entries)} blocks would be removed, {size:.1f} MiB; --yes removes them.")


def _matches(
    entry: Entry, quantizer: str, model: str, component: str, older_than: float, stale: bool
) -> bool:
    key = entry.key
    return (
        quantizer in ("", key.get("quantizer"))
        and str(key.get("model", "")).startswith(model)
        and component in ("", key.get("component"))
        and time.time() - entry.modified >= older_than * DAY
        and not (stale and _is_current(entry))
    )


def _is_current(entry: Entry) -> bool:
    """Whether the installed quantizer has the version that made it."""
    name = entry.key.get("quantizer", "")
    try:
        installed = registry.identity("quantizer", registry.load("quantizer", name))
    except InputError:
        return False
    own = (
        installed.distribution,
        installed.version,
        [list(pair) for pair in room_versions(*CODE_ROOMS).items()],
    )
    stored = ("quantizer_distribution", "quantizer_version", "versions")
    return own == tuple(entry.key.get(field) for field in stored)


def table(entries: Sequence[Entry]) -> str:
    """One line for blocks that differ in number and width alone."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        key = entry.key
        options = " ".join(f"{name}={value}" for name, value in key.get("options", ()))
        calibration = (key.get("calibration") or "-")[:8]
        names = [str(key.get(name, "?")) for name in ("model", "component", "quantizer")]
        groups.setdefault((names[0][:8], *names[1:], calibration, options), []).append(entry)
    head = ("model", "component", "quantizer", "calibration", "bits", "blocks", "MiB", "days")
    lines = []
    for (model, component, quantizer, calibration, options), part in groups.items():
        widths = sorted({entry.key.get("bits", 0) for entry in part})
        age = (time.time() - max(entry.modified for entry in part)) / DAY
        size = sum(entry.size for entry in part) / MIB
        lines.append(
            (model, component, quantizer, calibration, ",".join(map(str, widths)),
             str(len(part)), f"{size:.1f}", f"{age:.0f}", options)
        )  # fmt: skip
    return aligned((*head, "options"), lines)
