"""The overview of all commands, in sections, from the docstrings of modules not imported."""

import ast
from importlib.util import find_spec
from pathlib import Path

SECTIONS = {
    "Search": ("search", "status", "trial", "evaluate-baseline"),
    "Study": (
        *("grid", "ablate", "sweep-uniform", "curves", "compare", "compare-quantizers"),
        *("import-results", "analyze"),
    ),
    "Export": ("export", "measure", "evaluate"),
    "Inspect": ("size", "models", "datasets", "plugins"),
    "Prepare": ("quantize", "store", "train-embedded"),
}
OTHER = "Other"


def by_section(commands: list[str]) -> dict[str, list[str]]:
    """The commands by section; those of other distributions come last."""
    listed = {name for names in SECTIONS.values() for name in names}
    sections = {title: [n for n in names if n in commands] for title, names in SECTIONS.items()}
    sections[OTHER] = [name for name in commands if name not in listed]
    return {title: names for title, names in sections.items() if names}


def first_sentence(module: str, function: str) -> str:
    """The first line of a function's docstring, read from the source; "" if there is no source.

    >>> first_sentence("mmq.cli.overview", "by_section")
    'The commands by section; those of other distributions come last.'
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""
