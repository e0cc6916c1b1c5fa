"""`mmq analyze`: how much each part matters for the score, with intervals."""

from collections.abc import Mapping

import click

from mmq.analysis.tables import aligned
from mmq.cli.command import command
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse, print_json
from mmq.studies.options import AnalyzeOptions
from mmq.system.progress import notify


@command("analyze", "mmq analyze --study my-grid --report report.md", as_json=True)
@options_from(AnalyzeOptions)
@click.pass_context
def analyze(
    context: click.Context,
    options: AnalyzeOptions,
    plugin_options: Mapping[str, str],
    as_json: bool,
) -> None:
    """Rank the parts of a model by how much their bits affect the score, with intervals.

    Reads the finished trials of studies in MLflow, or files. Trials with other quantizers, tasks
    or models are compared on the configurations that all of them share. Logs an MLflow run with
    the findings.
    """
    from mmq.studies.analysis_run import run_analysis

    no_leftovers(context)
    result = run_analysis(options)
    if as_json:
        print_json(result.rows() | {"url": result.url})
        return
    notify("")
    click.echo(f"{result.text(aligned)}\n")
    print_how_to_browse()
    click.echo(f"Open:      {result.url}")
