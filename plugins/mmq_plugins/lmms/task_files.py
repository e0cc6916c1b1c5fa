"""lmms-eval's tasks by name: their YAML files, found without reading all 2,000 of them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mmq.errors import InputError

INSTALL = "pip install 'mmq[lmms]' && pip install --no-deps lmms-eval==0.7.3"
_TASK = re.compile(r"""^task: *["']?([^\s"'#]+)""", re.MULTILINE)
_GROUP = re.compile(r"""^group: *["']?([^\s"'#]+)""", re.MULTILINE)
_MEMBER = re.compile(r"""^ *- +(?:task: *)?["']?([\w.+-]+)["']? *$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TaskFile:
    """The YAML file of a task, or of a group with its members."""

    path: Path
    members: tuple[str, ...] = ()


def tasks_folder() -> Path:
    """The folder of lmms-eval's tasks; InputError if lmms-eval is not installed."""
    spec = find_spec("lmms_eval")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"task: lmms-eval is not installed; run {INSTALL}")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


@cache
def find_task(name: str) -> Path:
    """The YAML file of a task. InputError for a group or an unknown name."""
    root = tasks_folder()
    likely = [f for f in root.iterdir() if f.is_dir() and name.startswith(f.name)]
    file = _names(likely).get(name)
    if file is None:
        names = _names([root])
        if name not in names:
            near = get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(f'lmms:{each}' for each in near)}?" if near else ""
            raise InputError(
                f"task: lmms-eval has no task {name!r}.{hint} Its {len(names)} tasks are in the "
                f"*.yaml files of {root}."
            )
        file = names[name]
    if file.members:
        raise InputError(
            f"task: lmms-eval's {name!r} is a group of tasks; pass one of them: "
            f"{', '.join(f'lmms:{member}' for member in file.members)}"
        )
    return file.path


def _names(folders: Iterable[Path]) -> dict[str, TaskFile]:
    return {name: file for folder in folders for name, file in _declared(folder)}


def _declared(folder: Path) -> Iterator[tuple[str, TaskFile]]:
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text("utf-8", "replace")
        group, task = _GROUP.search(text), _TASK.search(text)
        if task is not None and not task[1].startswith("-"):
            yield task[1], TaskFile(path)
        elif group is not None:
            yield group[1], TaskFile(path, tuple(_MEMBER.findall(text)))
