"""The commands sweep-uniform, ablate and grid: studies whose allocations are known beforehand."""

from collections.abc import Mapping

import click

from mmq.cli.options import options_from
from mmq.cli.places import print_how_to_browse, print_where_saved
from mmq.studies.designs_run import (
    ABLATION,
    GRID,
    SWEEP,
    AblateOptions,
    Design,
    DesignOptions,
    GridOptions,
    SweepOptions,
    run_design,
)


@click.command("sweep-uniform")
@options_from(SweepOptions)
def sweep_uniform(options: SweepOptions, plugin_options: Mapping[str, str]) -> None:
    """Try each width on all subsets of components, block groups and layer types (algorithm 1).

    Run the same command again to resume after an interruption.
    """
    _run(SWEEP, options, plugin_options)


@click.command("ablate")
@options_from(AblateOptions)
def ablate(options: AblateOptions, plugin_options: Mapping[str, str]) -> None:
    """Try each component alone at every width, and each pair at all pairs of widths.

    Run the same command again to resume after an interruption.
    """
    _run(ABLATION, options, plugin_options)


@click.command("grid")
@options_from(GridOptions)
def grid(options: GridOptions, plugin_options: Mapping[str, str]) -> None:
    """Try every combination of the widths over the components.

    Run the same command again to resume after an interruption.
    """
    _run(GRID, options, plugin_options)


def _run(design: Design, options: DesignOptions, plugin_options: Mapping[str, str]) -> None:
    study = run_design(design, options, plugin_options)
    click.echo(f"\n{study}\n")
    click.echo(f"Study:     {study.name}, {len(study.points)} allocations")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {study.url}")
    click.echo(f"Front:     {study.run_url}")
