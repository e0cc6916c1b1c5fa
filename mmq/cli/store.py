"""`mmq store`: what is in the store, whether it is whole, and how to make room."""

import json
import time
from collections.abc import Sequence
from typing import Any

import click

from mmq import registry
from mmq.cli.options import no_leftovers
from mmq.cli.tables import aligned
from mmq.errors import InputError
from mmq.home import home
from mmq.store import Entry, Store

MIB = 1024**2
DAY = 24 * 3600


@click.group("store", invoke_without_command=True)
@click.pass_context
def store(context: click.Context) -> None:
    """List, verify and prune the quantized blocks on disk."""
    if context.invoked_subcommand is None:
        if context.args:
            raise InputError(f"store: {context.args[0]!r} is none of list, verify, prune")
        context.invoke(list_entries)


def the_store() -> Store:
    """The store in mmq's home."""
    return Store(home() / "store")


@store.command("list")
@click.option("--as-json", is_flag=True, help="Print JSON, a row a file.")
@click.pass_context
def list_entries(context: click.Context, as_json: bool = False) -> None:
    """One line a model, component and quantizer: widths, blocks, size, age."""
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
        return
    click.echo(table(entries))
    total = sum(entry.size for entry in entries) / MIB
    click.echo(f"\n{len(entries)} blocks, {total:.1f} MiB in {the_store().root}")


@store.command("verify")
@click.option("--remove", is_flag=True, help="Remove what is damaged; it is computed again.")
@click.pass_context
def verify(context: click.Context, remove: bool) -> None:
    """Read every block and compare its hash with the one it was stored with."""
    from tqdm import tqdm

    no_leftovers(context)
    entries = the_store().entries()
    damaged = 0
    for entry in tqdm(entries, desc="verify", unit="block", leave=False):
        if problem := entry.verify():
            damaged += 1
            click.echo(f"{entry.path.name}: {problem}" + ("; removed" if remove else ""))
            if remove:
                entry.path.unlink(missing_ok=True)
    click.echo(f"{len(entries) - damaged} of {len(entries)} blocks are whole.")
    if damaged and not remove:
        raise InputError(f"store: {damaged} blocks are damaged; --remove removes them")


@store.command("prune")
@click.option("--quantizer", default="", help="Only blocks of this quantizer.")
@click.option("--model", default="", help="Only blocks of this model fingerprint (its start).")
@click.option("--component", default="", help="Only blocks of this component.")
@click.option(
    "--older-than", type=float, default=0.0, help="Only blocks older than this many days."
)
@click.option("--stale", is_flag=True, help="Only blocks of code that is not installed any more.")
@click.option("--everything", is_flag=True, help="All blocks.")
@click.option("--yes", is_flag=True, help="Remove them; without it, say what would be removed.")
@click.pass_context
def prune(context: click.Context, /, yes: bool, everything: bool, **chosen: Any) -> None:
    """Remove blocks by what they are; they are computed again when a trial needs them."""
    no_leftovers(context)
    if everything == any(chosen.values()):
        raise InputError("prune: say which blocks, by --quantizer and so on, or --everything")
    entries = [entry for entry in the_store().entries() if _matches(entry, **chosen)]
    size = sum(entry.size for entry in entries) / MIB
    if yes:
        for entry in entries:
            entry.path.unlink(missing_ok=True)
        click.echo(f"{len(entries)} blocks removed, {size:.1f} MiB.")
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
    """Whether the installed quantizer is the one that made it."""
    name = entry.key.get("quantizer", "")
    try:
        return bool(entry.key["quantizer_origin"] == registry.origin("quantizer", name))
    except (InputError, KeyError):
        return False


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
