"""`mmq compare`: the answers of two trials side by side."""

from collections.abc import Mapping

import click

from mmq.cli.command import command
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.errors import InputError
from mmq.studies.answers_run import CompareOptions, compare_answers


@command("compare", "mmq compare RUN_ID models:/my-search@smallest-within-1-percent")
@click.argument("one", metavar="RUN", default="")
@click.argument("other", metavar="RUN", default="")
@options_from(CompareOptions)
@click.pass_context
def compare(
    context: click.Context,
    options: CompareOptions,
    plugin_options: Mapping[str, str],
    one: str,
    other: str,
) -> None:
    """Show the answers of two trials side by side, those that differ first.

    RUN is the id of a trial's run, or models:/NAME@ALIAS. Of a trial with several tasks, give the
    run of one task.
    """
    no_leftovers(context)
    runs = [run for run in (one, other, options.first, options.second) if run]
    if len(runs) != 2:
        raise InputError(
            f"run: two are compared, not {len(runs)}; write mmq compare RUN RUN, or --first RUN "
            f"--second RUN"
        )
    result = compare_answers(runs[0], runs[1], options)
    click.echo(f"{result.text(options.rows)}\n")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")
