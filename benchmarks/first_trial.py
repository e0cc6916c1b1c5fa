"""Time from `mmq search --data own.csv` to the end of the first trial, in a fresh home and store.

    python benchmarks/first_trial.py [--rows N] [--model NAME] [--repeats N]

Writes pictures of the bundled scenes with a sheet of questions into a temporary folder, starts the
command there as a newcomer does, and times its lines: the first one, and that of the first trial.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmq.data.source import find_source


def write(folder: Path, rows: int) -> Path:
    """A sheet with one question per picture, beside the pictures."""
    lines = ["photo;question;answer"]
    for sample in find_source("vqa", "scenes").samples():
        name = f"IMG_{len(lines)}.png"
        sample.images[0].open().save(folder / name)
        lines.append(f"{name};{sample.question};{sample.answers[0]}")
        if len(lines) > rows:
            break
    sheet = folder / "own.csv"
    sheet.write_text("\n".join(lines) + "\n")
    return sheet


def first_trial(folder: Path, model: str) -> tuple[float, float]:
    """Seconds until the command's first line, and until the first trial has ended."""
    command = [sys.executable, "-m", "mmq", "search", "--data", "own.csv", "--task",
               "short-answer", "--model", model, "--n-trials", "2"]  # fmt: skip
    home = tempfile.mkdtemp(dir=folder)
    env = os.environ | {
        "MMQ_HOME": home,
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "PYTHONUNBUFFERED": "1",
    }
    start = time.perf_counter()
    first = 0.0
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        first = first or time.perf_counter() - start
        if line.startswith("trial 1/"):
            seconds = time.perf_counter() - start
            process.stdout.read()
            process.wait()
            return first, seconds
    raise SystemExit(f"no trial has ended:\n{''.join(output)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--model", default="embedded-blip2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.rows)
        times = [first_trial(folder, options.model) for _ in range(options.repeats)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    firsts, ends = zip(*times, strict=True)
    print(f"{options.rows} rows, {options.model}, {options.repeats} runs, load {load}")
    print(f"first line after {statistics.median(firsts):.1f} s (median)")
    middle, most = statistics.median(ends), max(ends)
    print(f"first trial ended after {middle:.1f} s (median), {most:.1f} s at most")


if __name__ == "__main__":
    main()
