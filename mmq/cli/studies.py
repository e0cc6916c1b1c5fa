"""`mmq sweep-uniform`, `ablate` and `grid`: studies whose allocations are known beforehand."""

from collections.abc import Mapping

import click

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.studies.options import AblateOptions, DesignOptions, GridOptions, SweepOptions
from mmq.system.progress import notify


@command("sweep-uniform", "mmq sweep-uniform --model embedded-llava --bits 4,8 --limit 50")
@options_from(SweepOptions)
def sweep_uniform(options: SweepOptions, plugin_options: Mapping[str, str]) -> None:
    """Try each width on all subsets of components, block groups and layer types (algorithm 1).

    Run the same command again to resume after an interruption.
    """
    _run("sweep-uniform", options, plugin_options)


@command("ablate", "mmq ablate --model embedded-llava --quantizer gptq --bits 3,8 --limit 50")
@options_from(AblateOptions)
def ablate(options: AblateOptions, plugin_options: Mapping[str, str]) -> None:
    """Try each component alone at every width, and each pair at all pairs of widths.

    Run the same command again to resume after an interruption.
    """
    _run("ablate", options, plugin_options)


@command("grid", "mmq grid --quantizer gptq --bits 3,4,8 --limit 50 --study my-grid")
@options_from(GridOptions)
def grid(options: GridOptions, plugin_options: Mapping[str, str]) -> None:
    """Try every combination of the widths over the components.

    Run the same command again to resume after an interruption.
    """
    _run("grid", options, plugin_options)


def _run(name: str, options: DesignOptions, plugin_options: Mapping[str, str]) -> None:
    from mmq.studies.designs_run import DESIGNS, run_design

    study = run_design(DESIGNS[name], options, plugin_options)
    notify("")
    click.echo(f"{study}\n")
    click.echo(f"Study:     {study.name}, {len(study.points)} allocations")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {study.url}")
    click.echo(f"Run:       {study.run_url}")
