"""`mmq analyze`: how much each part matters for the score, with intervals."""

from collections.abc import Mapping

import click

from mmq.analysis.tables import aligned
from mmq.analysis.text import text
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse
from mmq.studies.analysis_run import AnalyzeOptions, run_analysis


@click.command("analyze")
@options_from(AnalyzeOptions)
@click.pass_context
def analyze(
    context: click.Context, options: AnalyzeOptions, plugin_options: Mapping[str, str]
) -> None:
    """Rank the parts of a model by how much their bits affect the score, with intervals.

    Reads the finished trials of studies in MLflow, or files. Trials with other quantizers, tasks
    or models are compared on the configurations that all of them share. Logs an MLflow run with
    the findings.
    """
    no_leftovers(context)
    result = run_analysis(options)
    click.echo(f"\n{text(result.analysis, aligned)}\n")
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")
