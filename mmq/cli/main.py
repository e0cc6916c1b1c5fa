"""The command group: built-in commands, those of plugins, and how errors and signals end them."""

import importlib
import logging
import os
import sys
from typing import Any

import click

from mmq import __version__
from mmq.cli.options import PLUGIN_OPTIONS, report_repeated
from mmq.contracts import registry
from mmq.errors import InputError, unknown
from mmq.system import disk
from mmq.system.secrets import hide_credentials, hide_in_output
from mmq.system.signals import Interrupt

BUILT_IN = {  # command: the module that holds it
    "ablate": "studies",
    "analyze": "analyze",
    "compare-quantizers": "compare_quantizers",
    "curves": "curves",
    "datasets": "datasets",
    "evaluate": "evaluate",
    "evaluate-baseline": "trial",
    "export": "export",
    "grid": "studies",
    "import-results": "import_results",
    "plugins": "plugins",
    "quantize": "quantize",
    "size": "size",
    "store": "store",
    "sweep-uniform": "studies",
    "trial": "trial",
}


class Commands(click.Group):
    """Commands from here and from the `mmq.commands` entry points, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names."""
        return sorted([*BUILT_IN, *(p.name for p in registry.installed("command"))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; InputError for an unknown one."""
        if cmd_name in BUILT_IN:
            module = importlib.import_module(f"mmq.cli.{BUILT_IN[cmd_name]}")
            command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        elif cmd_name in {p.name for p in registry.installed("command")}:
            command = registry.load("command", cmd_name)
        else:
            raise unknown("command", cmd_name, self.list_commands(ctx))
        command.context_settings = {**PLUGIN_OPTIONS, **command.context_settings}
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments, with a warning for an option that comes twice."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            report_repeated(command, rest)
        return name, command, rest


@click.group(cls=Commands)
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log what is going on.")
def cli(verbose: bool) -> None:
    """Find where the bits of a vision-language model belong."""
    logging.basicConfig(format="%(message)s", level=logging.INFO if verbose else logging.WARNING)


def main(argv: list[str] | None = None) -> Any:
    """Run a command; exit code 2 for bad input or a disk that refuses, 130 after an interrupt."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    hide_credentials()
    hide_in_output()
    Interrupt().install()
    try:
        cli.main(args=argv, prog_name="mmq", standalone_mode=False)
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "mmq"
        click.echo(f"Error: {error.format_message()} See {command} --help.", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "\nInterrupted. What was finished is kept; the same command goes on from there.",
            err=True,
        )
        sys.exit(130)
    except Exception as error:
        if (text := disk.sentence(error, *disk.places())) is None:
            raise
        logging.getLogger(__name__).info("What was refused:", exc_info=error)
        click.echo(f"Error: {text}", err=True)
        sys.exit(2)
