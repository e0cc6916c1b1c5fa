"""Results after a file that they depend on was damaged.

    python benchmarks/drills_files.py [--kinds NAME ...] [--damages NAME ...]

A small study runs once. Then, for every kind of stored file and every damage, the files are
restored, one is damaged, and the command that reads it runs again. A drill passes if the command
succeeds without a traceback, with the scores of the undamaged study, and with a warning that names
the file.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from drill_ground import QUESTION, Ground, warm_up

GRID = ["grid", *QUESTION, "--bits", "4,16"]
SEARCH = ["search", *QUESTION, "--bits", "4,16", "--granularity", "type", "--n-trials", "3"]


# --- damages: of a file, with another one of its kind --------------------------------------------
def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def half(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def bit_in_front(path: Path, other: Path) -> None:
    _flip(path, min(20, path.stat().st_size // 3))


def bit_in_the_middle(path: Path, other: Path) -> None:
    _flip(path, path.stat().st_size // 2)


def bit_at_the_end(path: Path, other: Path) -> None:
    _flip(path, -12)


def digit(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    places = [k for k, byte in enumerate(content) if 49 <= byte <= 56]  # 1 to 8
    content[places[len(places) // 2]] += 1
    path.write_bytes(content)


def folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def pipe(path: Path, other: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def noise(path: Path, other: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def missing(path: Path, other: Path) -> None:
    path.unlink()


DAMAGES: list[Callable[[Path, Path], None]] = [
    empty, half, bit_in_front, bit_in_the_middle, bit_at_the_end, digit, folder, loop, pipe, swap,
    noise, missing,
]  # fmt: skip


# --- kinds: where the files are, what reads them, what must be gone for that ---------------------
def without_records(ground: Ground) -> None:
    shutil.rmtree(ground.home / "records")


def without_records_and_stages(ground: Ground) -> None:
    without_records(ground)
    shutil.rmtree(ground.home / "stages")


def with_one_block_less(ground: Ground) -> None:
    """As a killed process leaves it: the last block is not stored."""
    without_records(ground)
    for path in (ground.home / "store").glob("llm-3-*"):
        path.unlink()


def nothing(ground: Ground) -> None:
    pass


KINDS: dict[str, tuple[str, list[str], Callable[[Ground], None]]] = {
    "blocks": ("store/*.safetensors", GRID, without_records_and_stages),
    "stage outputs": ("stages/*.safetensors", GRID, without_records),
    "snapshots": ("calibration/*.safetensors", GRID, with_one_block_less),
    "records": ("records/*/*.json", GRID, nothing),
    "study records": ("studies/drill-search/*.json", SEARCH, nothing),
    "profiles": ("profiles/*.json", SEARCH, nothing),
    "unlogged runs": ("unlogged/*/record.json", GRID, nothing),
    "embedded data": ("data/*/gqa/*.json", GRID, nothing),
}


def keep_snapshots() -> None:
    """Keep the inputs of every block, and die before the last one."""
    from mmq.artifacts import snapshot
    from mmq.artifacts.store import Store

    snapshot.SECONDS = 0.0
    put = Store.put

    def die(self, key, *rest):
        if (key.component, key.block) == ("llm", 3):
            raise KeyboardInterrupt
        put(self, key, *rest)

    Store.put = die  # type: ignore[method-assign]


def keep_unlogged() -> None:
    """Record trials, and find no place for their files."""
    from mmq.tracking.offline import writing_artifacts
    from mmq.tracking.runs import TrialRun

    def away(self, folder):
        with writing_artifacts():
            raise OSError(28, "No space left on device", str(folder))

    TrialRun.log_folder = away  # type: ignore[method-assign]


def make(ground: Ground) -> None:
    """The undamaged study, with a file of every kind."""
    steps = [
        ([*GRID, "--study", "interrupted"], keep_snapshots, 130),
        ([*GRID, "--study", "drill"], None, 0),
        ([*SEARCH, "--study", "drill-search"], None, 0),
        (["evaluate-baseline", *QUESTION], keep_unlogged, 2),
    ]
    for command, before, code in steps:
        snapshots = ground.home / "calibration"
        ended = ground.run(*command, before=before)
        if before is keep_snapshots:
            shutil.copytree(snapshots, ground.folder / "snapshots")
        if ended.code != code:
            raise SystemExit(f"{' '.join(command)}: {ended.code}\n{ended.output[-3000:]}")
    shutil.rmtree(snapshots, ignore_errors=True)
    shutil.copytree(ground.folder / "snapshots", snapshots)
    ground.keep()


def drill(ground: Ground, kind: str, damage: Callable[[Path, Path], None]) -> tuple[str, bool]:
    """The outcome of one damage in words, and whether it is correct."""
    pattern, command, prepare = KINDS[kind]
    ground.restore()
    prepare(ground)
    files = sorted(p for p in ground.home.glob(pattern) if "unfinished" not in p.parts)
    if not files:
        return "no such file", False
    victims = files[:1] if damage is not swap else files[:2]
    if damage is swap and len(files) < 2:
        return "only one file of this kind", True
    expected = ground.scores("drill" if command is GRID else "drill-search")
    damage(victims[0], victims[-1])
    again = command is SEARCH and kind == "study records"
    study = "drill-search" if again else "after"
    ended = ground.run(*command, "--study", study)
    if not ended.is_clean:
        return ("hung" if ended.code is None else f"traceback: {ended.last_line}"), False
    if ended.code:
        return f"exit {ended.code}: {ended.last_line}", False
    if ground.scores(study) != expected:
        return f"other scores: {ground.scores(study)}", False
    run = victims[0].parent.name.partition("@")[0]
    warned = (run if kind == "unlogged runs" else victims[0].name) in ended.output
    if damage is not missing and not warned:
        return "not reported", False
    return f"ends well in {ended.seconds:.1f} s" + (", reported" if warned else ""), True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    names = {damage.__name__: damage for damage in DAMAGES}
    parser.add_argument("--damages", nargs="+", choices=names, default=list(names))
    arguments = parser.parse_args()
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        make(ground := Ground(Path(name)))
        passed = drills = 0
        print("| file | damage | outcome | as expected |\n|---|---|---|---|", flush=True)
        for kind in arguments.kinds:
            for each in arguments.damages:
                outcome, well = drill(ground, kind, names[each])
                drills, passed = drills + 1, passed + well
                print(f"| {kind} | {each} | {outcome} | {'yes' if well else 'NO'} |", flush=True)
    print(f"\n{passed} of {drills} drills passed.")
    sys.exit(passed != drills)


if __name__ == "__main__":
    main()
