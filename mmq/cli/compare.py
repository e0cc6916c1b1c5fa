"""`mmq compare`: the answers of two trials side by side."""

from collections.abc import Mapping

import click

from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.studies.answers_run import CompareOptions, compare_answers


@click.command("compare")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@options_from(CompareOptions)
@click.pass_context
def compare(
    context: click.Context,
    options: CompareOptions,
    plugin_options: Mapping[str, str],
    first: str,
    second: str,
) -> None:
    """Show the answers of two trials side by side, those that differ first.

    RUN is the id of a trial's run, or models:/NAME@ALIAS. Of a trial with several tasks, give the
    run of one task.
    """
    no_leftovers(context)
    result = compare_answers(first, second, options)
    click.echo(f"{result.text(options.rows)}\n")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")
