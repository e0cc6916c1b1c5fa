"""Hashes of every module that computes codes or scores, and the versions that stand for them.

    python tests/identity.py        print what differs from tests/data/identity.json
    python tests/identity.py --record   record what is there (`make identity`)

The modules are derived from imports: what the plugins, a trial, its data and the sensitivity
profile import, as far as it belongs to a plugin distribution or to a room of mmq with a VERSION.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmq.contracts import registry
from mmq.system.versions import ROOMS, room_versions

RECORDED = Path(__file__).parent / "data" / "identity.json"
KINDS = ("quantizer", "evaluator", "model family", "dataset")
STARTS = (  # what computes beside the plugins: a module, and where its version is
    "mmq.trial", "mmq.prepare", "mmq.artifacts.artifacts", "mmq.studies.sensitivity",
)  # fmt: skip
PLACES = {  # of versions of modules outside the rooms that have one
    "mmq.studies.sensitivity": "VERSION in mmq/studies/sensitivity.py",
    "mmq.contracts.images": "VERSION in mmq/data/__init__.py",
    "mmq.system.image_decoding": "VERSION in mmq/data/__init__.py",
    "mmq.system.image_modes": "VERSION in mmq/data/__init__.py",
    "mmq.contracts.family": "VERSION in mmq/models/__init__.py",
    "mmq.contracts.vlm": "VERSION in mmq/models/__init__.py",
    "mmq.contracts.evaluator": "VERSION in mmq/evaluation/__init__.py",
    "mmq.contracts.quantizer": "VERSION in mmq/quantization/__init__.py",
}


@dataclass
class Computing:
    """The hash of every module, who answers for it, and the versions as they are now."""

    modules: dict[str, str] = field(default_factory=dict)
    owners: dict[str, list[str]] = field(default_factory=dict)  # where to raise a version
    versions: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"versions": self.versions, "modules": self.modules}


def plain(node: Any) -> Any:
    """A syntax tree as nested lists, without what changes no result.

    Left out: comments, docstrings, error and log messages, imports for type checkers, versions,
    and fields that some Python versions have and others lack.
    """
    if isinstance(node, list):
        return [plain(each) for each in node if not _is_inert(each)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):
        return ["Raise"]
    fields = [
        [name, plain(value)]
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("type_params", "kind", "type_comment", "ctx")
    ]
    return [type(node).__name__, *fields]


def _is_inert(node: Any) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return ast.unparse(target) in ("version", "VERSION")
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return isinstance(node.value, ast.Call) and ast.unparse(node.value.func).startswith("log.")


def hash_source(text: str) -> str:
    """A hash of what a module does, whatever its comments and docstrings say."""
    return hashlib.sha256(json.dumps(plain(ast.parse(text))).encode()).hexdigest()[:16]


def source_of(module: str) -> str | None:
    """A module's source; None if there is no such module, as where a class is imported."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_text()


def imports_of(text: str) -> Iterator[str]:
    """The modules that a module imports when it runs, inside its functions, too."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def computes(module: str, roots: set[str]) -> bool:
    """Whether a module can change codes or scores: beside a plugin, or in a room with VERSION."""
    package, _, rest = module.partition(".")
    if package == "mmq":
        in_room = "." in rest and rest.partition(".")[0] in ROOMS
        return in_room or module in STARTS or module in PLACES
    return package in roots


def reached(start: str, roots: set[str]) -> dict[str, str]:
    """The sources of a module and of all that it imports and that computes."""
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in found or not computes(module, roots):
            continue
        if (text := source_of(module)) is not None:
            found[module] = text
            waiting += imports_of(text)
    return found


def version_in(text: str, class_name: str) -> int:
    """The version that a class sets, 1 if it sets none; not imported: its packages may lack."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for each in node.body:
                if isinstance(each, ast.AnnAssign | ast.Assign) and each.value is not None:
                    target = each.targets[0] if isinstance(each, ast.Assign) else each.target
                    if ast.unparse(target) == "version":
                        return int(ast.literal_eval(each.value))
    return 1


def computing() -> Computing:
    """The installed modules that compute codes or scores, with their hashes."""
    result = Computing(versions={f"mmq.{room}": n for room, n in room_versions().items()})
    result.versions["mmq.studies.sensitivity"] = import_module("mmq.studies.sensitivity").VERSION
    plugins = {
        (kind, each.name): each.entry_point
        for kind in KINDS
        for each in registry.installed(kind)
        if each.distribution == "mmq"
    }
    roots = {entry.module.partition(".")[0] for entry in plugins.values()}
    sources: dict[str, str] = {}
    for (kind, name), entry in plugins.items():
        module, class_name = entry.module, entry.attr
        result.versions[f"{kind} {name}"] = version_in(source_of(module) or "", class_name)
        own = {m: text for m, text in reached(module, roots).items() if m.startswith(tuple(roots))}
        place = f"{class_name}.version in {module}"
        for each in own:
            result.owners.setdefault(each, []).append(place)
        sources |= reached(module, roots)
    for start in STARTS:
        sources |= reached(start, roots)
    for module, text in sorted(sources.items()):
        result.modules[module] = hash_source(text)
        room = module.split(".")[1] if module.startswith("mmq.") else ""
        if room:
            place = f"VERSION in mmq/{room}/__init__.py"
            if room not in ROOMS:
                place = PLACES.get(module, "VERSION of the room whose results change")
            result.owners[module] = [place]
    return result


def differences(now: Computing, recorded: dict[str, Any]) -> list[str]:
    """Advice for every module that differs from its record; [] if none does."""
    texts = []
    for module in sorted(now.modules.keys() | recorded["modules"].keys()):
        if module not in now.modules:
            texts.append(f"{module} is gone. Run `make identity`.")
        elif now.modules[module] != recorded["modules"].get(module):
            places = " or ".join(sorted(now.owners.get(module, ())))
            state = "is edited" if module in recorded["modules"] else "is new"
            texts.append(
                f"{module} {state}. Does it give the same codes and scores? Then run `make "
                f"identity` to record its new hash. Other results: raise {places}, then run "
                f"`make identity`."
            )
    if now.versions != recorded["versions"]:
        texts.append("A version was raised, or a plugin is new. Run `make identity`.")
    return texts


def main(record: bool) -> int:
    now = computing()
    if record:
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(now.as_json(), indent=1) + "\n")
        print(f"{len(now.modules)} modules recorded in {RECORDED}")
        return 0
    texts = differences(now, json.loads(RECORDED.read_text()))
    print("\n".join(texts) or "All modules are as recorded.")
    return len(texts)


if __name__ == "__main__":
    sys.exit(main("--record" in sys.argv[1:]))
