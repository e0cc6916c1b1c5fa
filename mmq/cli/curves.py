"""`mmq curves`: the score against the bits of each component alone, and of all at once."""

from collections.abc import Mapping

import click

from mmq.analysis.tables import aligned
from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.studies.options import CurvesOptions


@command("curves", "mmq curves --model embedded-llava --quantizers rtn,gptq --limit 50")
@options_from(CurvesOptions)
def curves(options: CurvesOptions, plugin_options: Mapping[str, str]) -> None:
    """Trace the score against the bits of each component alone, and of all at once.

    Plugin options such as --group-size 64 go to every quantizer that has them. Run the same
    command again to resume after an interruption.
    """
    from mmq.studies.curves_run import heading, least_table, run_curves

    result = run_curves(options, plugin_options)
    click.echo(f"{heading(result)} ({result.score_name}, n = {result.unquantized.n}):\n")
    click.echo(aligned(*least_table(result)))
    click.echo(result.problem_text)
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")
