"""Time and memory to load VQAv2's annotations, compared with json.load of the same files.

    python benchmarks/loading.py [--questions N]

Writes a synthetic annotation pair of val2014's size (214,354 questions, ten answers each) into a
temporary folder, loads it in child processes, and prints the size of the files, and the CPU
seconds and peak extra memory of three ways: json.load of both files, mmq's reader (complete
samples), and a draw of 128 calibration pairs from the same files under their training names.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from mmq_plugins.datasets.vqav2 import VqaV2

from mmq.data.subsets import draw_pairs

PICTURES_PER_QUESTION = 40_504 / 214_354
COMMON = ("yes", "no", "1", "2", "white", "blue", "red", "black", "brown", "wood")
MIB = 2**20


def files(root: Path, split: str = "val2014") -> tuple[Path, Path]:
    return (
        root / f"v2_OpenEnded_mscoco_{split}_questions.json",
        root / f"v2_mscoco_{split}_annotations.json",
    )


def annotator_answers(rng: random.Random) -> list[dict[str, Any]]:
    """Ten answers: mostly common ones, mostly the same, some from a long tail."""
    usual = rng.choice(COMMON) if rng.random() < 0.6 else f"word {rng.randrange(20_000)}"
    return [
        {
            "answer": usual if rng.random() < 0.8 else f"word {rng.randrange(20_000)}",
            "answer_confidence": rng.choice(("yes", "maybe")),
            "answer_id": k,
        }
        for k in range(1, 11)
    ]


def pictures(questions: int) -> int:
    return max(1, int(questions * PICTURES_PER_QUESTION))


def rows(questions: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Questions and annotations with the keys of the official files."""
    rng = random.Random(0)
    each = -(-questions // pictures(questions))  # questions on one picture follow one another
    for k in range(questions):
        picture, number = divmod(k, each)
        image_id = 42 + 14 * picture
        ids = {"image_id": image_id, "question_id": image_id * 1000 + number}
        text = f"What is the colour of the thing number {rng.randrange(10**6)} on the table?"
        answers = annotator_answers(rng)
        annotation = {
            "question_type": "what is the", "multiple_choice_answer": answers[0]["answer"],
            "answers": answers, "answer_type": rng.choice(("yes/no", "number", "other")),
        }  # fmt: skip
        yield {**ids, "question": text}, {**annotation, **ids}


def write(root: Path, questions: int) -> int:
    """The pair of files, row by row, under validation and training names; their size in bytes."""
    head = '{"info": {"version": "2.0"}, "data_type": "mscoco", "license": {}, '
    first, second = files(root)
    with first.open("w") as questions_file, second.open("w") as answered:
        questions_file.write(head + '"questions": [')
        answered.write(head + '"annotations": [')
        for k, (question, annotation) in enumerate(rows(questions)):
            questions_file.write(", " * bool(k) + json.dumps(question))
            answered.write(", " * bool(k) + json.dumps(annotation))
        questions_file.write("]}")
        answered.write("]}")
    for path, training in zip(files(root), files(root, "train2014"), strict=True):
        os.link(path, training)
    (root / "train2014").mkdir()
    for image_id in range(42, 42 + 14 * pictures(questions), 14):
        (root / "train2014" / f"COCO_train2014_{image_id:012d}.jpg").touch()
    return first.stat().st_size + second.stat().st_size


def with_json(root: Path) -> Any:
    return [json.loads(path.read_bytes()) for path in files(root)]


def with_mmq(root: Path) -> Any:
    return list(VqaV2().read(root, "val2014"))


def drawn(root: Path) -> Any:
    return draw_pairs(VqaV2(), root, "train2014", 128, seed=0)


WAYS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "json": ("json, both files", with_json),
    "mmq": ("mmq, all samples", with_mmq),
    "draw": ("mmq, 128 calibration pairs", drawn),
}


def measure(way: str, root: Path) -> None:
    """In a child process: print seconds and peak memory beyond what the imports took."""
    if (marks := Path("/proc/self/clear_refs")).exists():
        marks.write_text("5")  # Linux: the peak so far, that of the imports, is forgotten
    before = psutil.Process().memory_info().rss
    started = time.process_time()
    result = WAYS[way][1](root)
    seconds = time.process_time() - started
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps([seconds, max(peak - before, 1), len(result)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=214_354)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), options.questions)
        print(f"{options.questions:,} questions, {size / MIB:,.0f} MiB of JSON\n")
        print("| loaded by | CPU seconds | of json | peak extra MiB | of json | of the files |")
        print("|---|---|---|---|---|---|")
        base = None
        for way, (name, _) in WAYS.items():
            command = [sys.executable, __file__, "--measure", way, "--folder", folder]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, peak, _ = json.loads(result.stdout)
            base = base or (seconds, peak)
            print(
                f"| {name} | {seconds:.1f} | {seconds / base[0]:.2f} | {peak / MIB:.0f} "
                f"| {peak / base[1]:.2f} | {peak / size:.2f} |"
            )


if __name__ == "__main__":
    main()
