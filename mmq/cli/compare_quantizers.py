"""`mmq compare-quantizers`: errors, size, score and seconds of quantizers, side by side."""

from collections.abc import Mapping

import click

from mmq.analysis.tables import aligned
from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.studies.options import QuantizerStudyOptions
from mmq.system.progress import notify


@command(
    "compare-quantizers", "mmq compare-quantizers --quantizers rtn,gptq,awq --bits 4,3 --limit 50"
)
@options_from(QuantizerStudyOptions)
def compare_quantizers(options: QuantizerStudyOptions, plugin_options: Mapping[str, str]) -> None:
    """Compare quantizers, with every component at one width after another.

    Plugin options such as --group-size 64 go to every quantizer that has them. Errors are means
    over layers; output errors are measured on the layers' inputs in the unquantized model. Seconds
    are the quantization time, shared equally by widths that are computed together.
    Run the same command again to resume after an interruption.
    """
    from mmq.studies.comparison_run import run_comparison

    comparison = run_comparison(options, plugin_options)
    click.echo(aligned(*comparison.table))
    notify("")
    click.echo(f"{comparison.finding}{comparison.problem_text}\n")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {comparison.url}")
