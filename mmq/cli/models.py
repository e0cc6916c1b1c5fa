"""`mmq models`: which models can be quantized, and how much of each."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from mmq.cli.command import command
from mmq.cli.options import no_leftovers
from mmq.contracts import registry
from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.models.coverage import Coverage


@command("models", "mmq models --check")
@click.option(
    "--check",
    is_flag=True,
    help="Print the share of each transformers architecture that can be quantized.",
)
@click.option("--as-markdown", is_flag=True, help="With --check: print the page docs/coverage.md.")
@click.pass_context
def models(context: click.Context, check: bool, as_markdown: bool) -> None:
    """List the model families, or check how much of each architecture can be quantized."""
    from mmq.models.coverage import check_all

    no_leftovers(context)
    if as_markdown and not check:
        raise InputError("as-markdown: add --check, whose result the page shows")
    if not check:
        for line in family_lines():
            click.echo(line)
        return
    if as_markdown:
        click.echo(page(check_all()))
        return
    rows = []
    for row in check_all():
        click.echo(text_line(row))
        rows.append(row)
    click.echo(summary(rows))


def family_lines() -> Iterable[str]:
    """One line per installed family: its name and what it supports."""
    from mmq.contracts.family import ModelFamily

    for plugin in registry.installed("model family"):
        try:
            family = registry.load_class("model family", plugin.name, ModelFamily)
        except InputError as error:
            yield f"{plugin.name:<18}{error}"
            continue
        names = [name for name in family.architectures if name[0].isupper()]
        fallback = "every other image-text-to-text model of transformers; see --check"
        yield f"{plugin.name:<18}{', '.join(names) or fallback}"


def text_line(row: "Coverage") -> str:
    """One architecture in the terminal."""
    parts = " ".join(f"{name}:{blocks}" for name, blocks in row.components)
    shares = f"{row.blocks:7.1%}{row.model:7.1%}" if row.components else f"{'-':>7}{'-':>7}"
    return f"{row.architecture:<48}{shares}  {parts or row.reason}".rstrip()


def summary(rows: Iterable["Coverage"]) -> str:
    """How many architectures are covered."""
    from mmq.models.coverage import ENOUGH

    rows = list(rows)
    enough = sum(row.blocks >= ENOUGH for row in rows)
    others = [row.architecture for row in rows if not row.is_covered]
    text = (
        f"{enough} of {len(rows)} architectures: at least {ENOUGH:.0%} of the weights in their "
        f"blocks can be quantized; {len(rows) - enough} others, with the reason."
    )
    return f"{text} Without a reason: {', '.join(others)}." if others else text


def page(rows: Iterable["Coverage"]) -> str:
    """The page docs/coverage.md."""
    rows = list(rows)
    head = [
        "# Coverage",
        "",
        f"What mmq can quantize of each image-text-to-text architecture of transformers "
        f"{version('transformers')}, from a configuration without weights. Written by "
        f"`python -m mmq models --check --as-markdown > docs/coverage.md`.",
        "",
        summary(rows),
        "",
        "- *Blocks*: the share of the weights in the components' blocks, without vectors.",
        "- *Model*: the share of all parameters. The rest stays at 16 bits; its largest modules "
        "are listed.",
        "",
        "| architecture | components: blocks | blocks | model | at 16 bits |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(markdown_row, rows)])


def markdown_row(row: "Coverage") -> str:
    """One architecture as a row of a table."""
    if not row.components:
        return f"| {row.architecture} | | | | {row.reason} |"
    parts = ", ".join(f"{name}: {blocks}" for name, blocks in row.components)
    left = "; ".join(filter(None, (row.left, row.reason)))
    return f"| {row.architecture} | {parts} | {row.blocks:.1%} | {row.model:.1%} | {left} |"
