"""A command of `mmq`: options in sections, an example, and how much it reports while it works."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import click

from mmq.cli.plugin_help import plugin_sections
from mmq.cli.sections import TITLES, section_of
from mmq.system.progress import Verbosity, set_verbosity

PLUGIN_OPTIONS = {"ignore_unknown_options": True, "allow_extra_args": True}
JSON_HELP = "Print the result as one JSON document; everything else goes to standard error."


ARGUMENTS = "mmq.arguments"  # key of the command line's arguments in click's context


class Command(click.Command):
    """A command whose help has sections, and the options of the plugins that it is given.

    example: a command line that works.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, which the help reads, too."""
        ctx.meta[ARGUMENTS] = tuple(args)  # --help ends the parsing before they are options
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by section, then those of the plugins in the arguments."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):  # the usage line has it
                continue
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(section_of(param.name or ""), []).append(record)
        for title in [title for title in TITLES if title in sections]:
            with formatter.section(title):
                formatter.write_dl(sections[title])
        for title, rows in plugin_sections(self.params, ctx.meta.get(ARGUMENTS, ())):
            with formatter.section(title):
                if isinstance(rows, str):
                    formatter.write_text(rows)
                else:
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        if self.example:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")


def command(
    name: str, example: str, as_json: bool = False
) -> Callable[[Callable[..., Any]], Command]:
    """Turn a function into a command with -v and -q; the outermost decorator.

    as_json: also add --json, a parameter `as_json` of the function.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        for option in reversed(list(_common(as_json))):
            function = option(function)
        settings = dict(PLUGIN_OPTIONS)
        return click.command(name, cls=Command, example=example, context_settings=settings)(
            function
        )

    return decorate


def _common(as_json: bool) -> Iterator[Callable[..., Any]]:
    """The options that all commands have."""
    if as_json:
        yield click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
    levels = {
        "verbose": ("-v", Verbosity.VERBOSE, "Log each step."),
        "quiet": ("-q", Verbosity.QUIET, "Print only the result."),
    }
    for name, (short, level, text) in levels.items():
        yield click.option(
            short, f"--{name}", is_flag=True, expose_value=False, help=text, callback=_set(level)
        )


def _set(level: Verbosity) -> Callable[[click.Context, click.Parameter, bool], None]:
    """The callback of the option that selects this level."""

    def select(context: click.Context, parameter: click.Parameter, is_set: bool) -> None:
        if is_set:
            set_verbosity(level)
            logging.getLogger().setLevel(level.logged)

    return select
