"""The command group: built-in commands, those of plugins, and their exit codes."""

import importlib
import logging
import os
import sys
from typing import Any

import click

from mmq import __version__
from mmq.cli.command import PLUGIN_OPTIONS
from mmq.cli.options import report_repeated
from mmq.cli.overview import by_section, first_sentence
from mmq.contracts import registry
from mmq.errors import DryRun, InputError, ShareDone, TrialsFailed, unknown
from mmq.system import disk, memory
from mmq.system.environment import set_up_environment
from mmq.system.progress import Verbosity, set_verbosity
from mmq.system.secrets import hide_in_output
from mmq.system.signals import Interrupt

SETTINGS = {
    "max_content_width": 120,  # columns of help on a wide terminal
    "help_option_names": ["-h", "--help"],
}
BUILT_IN = {  # command: its module
    "ablate": "studies",
    "analyze": "analyze",
    "compare": "compare",
    "compare-quantizers": "compare_quantizers",
    "curves": "curves",
    "datasets": "datasets",
    "evaluate": "evaluate",
    "evaluate-baseline": "trial",
    "export": "export",
    "grid": "studies",
    "import-results": "import_results",
    "measure": "measure",
    "models": "models",
    "plugins": "plugins",
    "quantize": "quantize",
    "size": "size",
    "store": "store",
    "sweep-uniform": "studies",
    "trial": "trial",
}


START = {  # commands for a newcomer, with what they do
    "mmq search --model embedded-llava --limit 100": "a search in a few minutes",
    "mmq search --quantizer gptq --help": "options, also of a plugin",
}


class Commands(click.Group):
    """Commands from here and from the `mmq.commands` entry points, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names."""
        return sorted([*BUILT_IN, *_plugins()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; InputError for an unknown one."""
        if cmd_name in BUILT_IN:
            module = importlib.import_module(f"mmq.cli.{BUILT_IN[cmd_name]}")
            command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        elif cmd_name in _plugins():
            command = registry.load("command", cmd_name)
        else:
            raise unknown("command", cmd_name, self.list_commands(ctx))
        command.context_settings = {**PLUGIN_OPTIONS, **command.context_settings}
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments, with a warning for a repeated option."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            report_repeated(command, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section; their modules, which import a lot, are read, not imported."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for title, commands in by_section(names).items():
            with formatter.section(title):
                rows = [(name.ljust(width), _short_help(name)) for name in commands]
                formatter.write_dl(rows, col_max=width + 2)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands to start with."""
        with formatter.section("Start with"):
            formatter.write_dl(list(START.items()), col_max=max(map(len, START)) + 2)


def _plugins() -> dict[str, str]:
    """The commands of entry points, with their place: module:function."""
    return {p.name: p.entry_point.value for p in registry.installed("command")}


def _short_help(name: str) -> str:
    """The first sentence of a command's help."""
    if name in BUILT_IN:
        return first_sentence(f"mmq.cli.{BUILT_IN[name]}", name.replace("-", "_"))
    module, _, function = _plugins()[name].partition(" ")[0].partition(":")
    return first_sentence(module, function)


@click.group(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Find the best bit width for each part of a vision-language model."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(argv: list[str] | None = None) -> Any:
    """Run a command; exit code 2 for invalid input or a disk error, 130 after an interrupt.

    1 if trials failed, or if there is not enough memory.
    """
    set_up_environment()
    hide_in_output()  # before logging takes the error output
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if not sys.stderr.isatty():  # before tqdm is imported: the bars of other libraries, too
        os.environ.setdefault("TQDM_DISABLE", "1")
    set_verbosity(Verbosity.NORMAL)
    Interrupt().install()
    try:
        cli.main(args=argv, prog_name="mmq", standalone_mode=False)
    except ShareDone:  # the command that launched this worker reports the results
        sys.exit(0)
    except DryRun as plan:
        click.echo(plan)
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
            "\nInterrupted. Completed work is saved; run the same command to resume.",
            err=True,
        )
        sys.exit(130)
    except TrialsFailed as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if (text := memory.shortage(error)) is not None:
            code = 1
        elif (text := disk.sentence(error, *disk.places())) is not None:
            code = 2
        else:
            raise
        logging.getLogger(__name__).info("Not enough memory or disk:", exc_info=error)
        click.echo(f"Error: {text}", err=True)
        sys.exit(code)
