"""`mmq status`: the progress of a study, read without disturbing it."""

from dataclasses import dataclass

import click

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_json, print_where_saved
from mmq.config import option
from mmq.errors import unknown


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """Which search to show."""

    study: str = option("", "Name of the study to show; empty: the only one there is.")


@command("status", "mmq status my-search", as_json=True)
@click.argument("name", required=False, metavar="[STUDY]")
@options_from(StatusOptions)
def status(
    options: StatusOptions, plugin_options: dict[str, str], name: str | None, as_json: bool
) -> None:
    """Print a study's front, its trials and workers, the time used and left, and its links.

    A planned study that workers share shows its units and its workers instead. Reads the database
    in MMQ_HOME, or at MMQ_STORAGE, whichever machines are at work.
    """
    from mmq_search.status_report import report_on

    if plugin_options:
        raise unknown("option", next(iter(plugin_options)), ["study"])
    report = report_on(name or options.study)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(report.text())
    print_where_saved()
    for line in report.links:
        click.echo(line)
