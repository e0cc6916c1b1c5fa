"""The commands and examples that README, CONTRIBUTING and the pages of docs/ show.

A fence says how its commands are tested:

    ```bash      executed
    ```console   parsed: the command, its options and values, and the names of plugins exist

Lines that start with "$ " are commands among their output.
"""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml

from mmq.cli.main import cli
from mmq.cli.options import leftovers
from mmq.config import flag
from mmq.contracts import options, registry
from mmq.errors import InputError, unknown

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
PLUGIN_KINDS = ("quantizer", "evaluator", "target", "launcher")
OF_A_PLUGIN = {"clip"}  # options of the plugin that docs/plugins.md writes
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
ENTRIES = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
ELSEWHERE = {  # programs that are not ours, and shell
    "cd", "curl", "export", "git", "llama-mtmd-cli", "llama-server", "optimum-cli", "optuna", "{",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A shown command; page and line for messages, `executed` from its fence."""

    page: str
    text: str
    executed: bool

    @property
    def words(self) -> list[str]:
        """Program and arguments, without variables that precede them and comments."""
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        return words


def blocks(page, *languages):
    """The contents of a page's fences in these languages."""
    fences = FENCE.findall(page.read_text())
    return [text for _, language, text in fences if language in languages]


def commands_of(page):
    """All commands that a page shows."""
    name = str(page.relative_to(ROOT))
    for indent, language, text in FENCE.findall(page.read_text()):
        if language not in ("bash", "console"):
            continue
        lines = [line.removeprefix(indent) for line in text.replace("\\\n", " ").splitlines()]
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in filter(None, lines):
            yield Command(name, line, language == "bash")


def check(words):
    """Raise InputError or AssertionError for a command that could not run."""
    program, *arguments = words
    program = Path(program).name  # of a virtual environment
    if program == "mmq":
        check_mmq(arguments)
    elif program == "make":
        assert all(
            re.search(rf"^{re.escape(name)}:", MAKEFILE, re.MULTILINE) for name in arguments
        )
    elif program == "pip":
        extras = re.findall(r"(?:mmq|\.whl|\.)\[([\w,-]+)\]", " ".join(arguments))
        known = PROJECT["project"]["optional-dependencies"]
        assert {name for each in extras for name in each.split(",")} <= set(known)
    elif program == "mlflow":
        check_mlflow(arguments)
    elif program == "python":
        check_python(arguments)
    else:
        assert program in ELSEWHERE, program


def check_mmq(arguments):
    """The command exists, takes these options, and names plugins that are there."""
    context = cli.make_context("mmq", list(arguments))
    name, command, rest = cli.resolve_command(context, context.protected_args + context.args)
    inner = command.make_context(name, list(rest), parent=context)
    extra = leftovers(inner.args) if not hasattr(command, "commands") else {}
    fields = {
        field.rstrip("_"): kind
        for plugin_kind in PLUGIN_KINDS
        for plugin in registry.installed(plugin_kind)
        for field, kind in fields_of(plugin_kind, plugin.name)
    }
    for option, value in extra.items():
        plain = option.replace("-", "_").rpartition(".")[2]
        if plain in OF_A_PLUGIN:
            continue
        if plain not in fields:
            raise unknown("option", option, fields)
        if "=" not in value:  # options by width have a value per width
            options.convert(option, value, fields[plain])
    for option, kind in (("quantizer", "quantizer"), ("task", "evaluator"),
                         ("target", "target"), ("launcher", "launcher")):  # fmt: skip
        value = inner.params.get(option)
        if value and value != "clipped":
            names = [plugin.name for plugin in registry.installed(kind)]
            if value.partition(":")[0] not in names:
                raise unknown(kind, value, names)


def fields_of(kind, name):
    """Options of a plugin; none where its package is not installed."""
    try:
        return options.field_types(registry.load(kind, name)).items()
    except InputError:
        return ()


def check_mlflow(arguments):
    """`mlflow run` names an entry point and its parameters; other commands are MLflow's."""
    if arguments[0] != "run":
        assert arguments[:2] == ["models", "serve"] or arguments[0] == "ui"
        return
    assert arguments[1] == "."
    assert "--env-manager" in arguments
    entry = ENTRIES[arguments[arguments.index("-e") + 1]]
    given = [arguments[k + 1] for k, word in enumerate(arguments) if word == "-P"]
    for each in given:
        name = each.partition("=")[0]
        assert flag(name) in entry["command"] or name in dict(
            field for kind in PLUGIN_KINDS for p in registry.installed(kind)
            for field in fields_of(kind, p.name)
        )  # fmt: skip


def check_python(arguments):
    """A script of ours, or a module, that exists; `python -m mmq` is mmq."""
    if arguments[:2] == ["-m", "mmq"]:
        check_mmq(arguments[2:])
    elif arguments[0] == "-m":
        path = arguments[1].replace(".", "/") + ".py"
        assert arguments[1] in ("build", "pytest", "venv") or (ROOT / "plugins" / path).exists()
    else:
        assert (ROOT / arguments[0]).exists()
