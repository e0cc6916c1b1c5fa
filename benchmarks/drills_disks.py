"""Commands on full and read-only disks, which are real small file systems; requires root.

    python benchmarks/drills_disks.py [--only TEXT ...]

A drill passes if the command succeeds, or exits with code 2 and a message that names a path on
that disk, without a traceback and within 90 seconds, and if the same command succeeds with the
correct scores once there is space. The last column is the number of trials completed before that.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from drill_ground import QUESTION, Ended, Ground, warm_up

GRID = ["grid", *QUESTION, "--bits", "4,16", "--study", "drill"]
SEARCH = ["search", *QUESTION, "--bits", "4,16", "--n-trials", "4", "--study", "search"]
QUANTIZE = ["quantize", *QUESTION, "--bits", "3,4"]
TRIAL = ["trial", *QUESTION, "--bits", "llm=4"]
KIB = 1024
FULL = ("no space is left", "disk is full")


def used(folder: Path) -> int:
    """Bytes that a folder takes in pages."""
    return sum((path.lstat().st_size // 4096 + 1) * 4096 for path in folder.rglob("*"))


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextmanager
def small(folder: Path, room: int):
    """A folder's content on a disk of its own with this many bytes of room."""
    content = folder.with_name(f"{folder.name}.content")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, content, symlinks=True)
    mount(folder, f"size={max(used(content) + room, 4096)}")
    try:
        shutil.copytree(content, folder, symlinks=True, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(content)


class Drill:
    """A failing disk, a command on it, and the same command after the disk is fixed."""

    def __init__(self, ground: Ground, command: list[str]) -> None:
        self.ground, self.command = ground, command

    def full(self, folder: Path, room: int) -> tuple[str, bool]:
        with small(folder, room):
            ended = self.ground.run(*self.command)
            finished = len(self.ground.scores(self.study))
            remount(folder, "size=1g")
            return self._judge(ended, finished, str(folder))

    def read_only(self, folder: Path) -> tuple[str, bool]:
        with small(folder, 2**30):
            remount(folder, "ro")
            ended = self.ground.run(*self.command)
            finished = len(self.ground.scores(self.study))
            remount(folder, "rw")
            return self._judge(ended, finished, str(folder))

    def in_the_way(self, path: Path, put: Callable[[Path], object]) -> tuple[str, bool]:
        aside = path.with_name(f"{path.name}.away")
        with suppress(FileNotFoundError):
            path.rename(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path)
        ended = self.ground.run(*self.command)
        finished = len(self.ground.scores(self.study))
        if path.is_symlink() or path.is_file():
            path.unlink()
        with suppress(FileNotFoundError):
            aside.rename(path)
        return self._judge(ended, finished, str(path))

    @property
    def study(self) -> str:
        return self.command[-1] if "--study" in self.command else ""

    def _judge(self, ended: Ended, finished: int, place: str) -> tuple[str, bool]:
        code = "hung" if ended.code is None else f"exit {ended.code}"
        output = f"{code} after {ended.seconds:.0f} s: {ended.last_line} | {finished}"
        named = place in ended.output or any(text in ended.output for text in FULL)
        well = ended.is_clean and (ended.code == 0 or (ended.code == 2 and named))
        again = self.ground.run(*self.command)
        if again.code != 0:
            return f"{output}; again: exit {again.code}: {again.last_line}", False
        if self.study and len(self.ground.scores(self.study)) != 4:
            return f"{output}; again: {self.ground.scores(self.study)}", False
        return output, well


def loop(path: Path) -> None:
    path.symlink_to(path)


def drills(ground: Ground) -> dict[str, Callable[[], tuple[str, bool]]]:
    """All drills by name."""
    home, logs, temp = ground.home, ground.logs, ground.temp
    commands = {"grid": GRID, "search": SEARCH, "quantize": QUANTIZE, "trial": TRIAL}
    cases: dict[str, Callable[[], tuple[str, bool]]] = {}
    for name, rooms in {
        "grid": (0, 100 * KIB, 700 * KIB, 1500 * KIB), "search": (0, 200 * KIB, 1200 * KIB),
        "quantize": (100 * KIB, 600 * KIB), "trial": (100 * KIB, 700 * KIB),
    }.items():  # fmt: skip
        for room in rooms:
            cases[f"home, {room // KIB} KiB left, {name}"] = lambda c=commands[name], room=room: (
                Drill(ground, c).full(home, room)
            )
    for name, room in (
        ("grid", 0),
        ("grid", 300 * KIB),
        ("search", 300 * KIB),
        ("trial", 100_000),
    ):
        cases[f"MLflow, {room // KIB} KiB left, {name}"] = lambda c=commands[name], room=room: (
            Drill(ground, c).full(logs, room)
        )
    for name, room in (("grid", 0), ("search", 8 * KIB)):
        cases[f"TMPDIR, {room // KIB} KiB left, {name}"] = lambda c=commands[name], room=room: (
            Drill(ground, c).full(temp, room)
        )
    for name, folder in (("home", home), ("MLflow", logs), ("TMPDIR", temp)):
        cases[f"{name} read-only, grid"] = lambda f=folder: Drill(ground, GRID).read_only(f)
    for name in ("store", "records", "stages", "unlogged", "data"):
        cases[f"a file for {name}, grid"] = lambda name=name: Drill(ground, GRID).in_the_way(
            home / name, Path.touch
        )
    cases["a file for home, trial"] = lambda: Drill(ground, TRIAL).in_the_way(home, Path.touch)
    cases["a loop for home, search"] = lambda: Drill(ground, SEARCH).in_the_way(home, loop)
    cases["a loop for records, grid"] = lambda: Drill(ground, GRID).in_the_way(
        home / "records", loop
    )
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="Drills whose name holds one.")
    arguments = parser.parse_args()
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(Path(name))
        made = ground.run("evaluate-baseline", *QUESTION, "--limit", "2")
        if made.code:
            raise SystemExit(made.output[-3000:])
        shutil.rmtree(ground.home / "stages", ignore_errors=True)
        ground.keep()
        selected = {
            k: v for k, v in drills(ground).items() if any(text in k for text in arguments.only)
        }
        passed = 0
        print("| disk | outcome | trials afterwards | as expected |\n|---|---|---|---|")
        for text, case in selected.items():
            ground.restore()
            outcome, well = case()
            passed += well
            print(f"| {text} | {outcome} | {'yes' if well else 'NO'} |", flush=True)
    print(f"\n{passed} of {len(selected)} drills passed.")
    sys.exit(passed != len(selected))


if __name__ == "__main__":
    main()
