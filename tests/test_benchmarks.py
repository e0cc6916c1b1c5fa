"""The benchmark scripts run, on a few samples, and print their tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = BENCHMARKS.parent / "plugins/mmq_plugins/embedded/assets/blip2/config.json"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["trial_time.py", "--limit", "8", "--trials", "1", "--case", "embedded-llava/gqa"],
            "| embedded-llava | gqa | warm | ",
        ),
        (["memory.py", "--config", str(TINY)], "| 4 images captioned at 4 bits | "),
        (["loading.py", "--questions", "2000"], "| mmq, all samples | "),
        (
            ["embedded_model.py", "--limit", "4", "--model", "embedded-blip2"],
            "| rtn, group-size 64 | vit+qformer+llm | ",
        ),
    ],
)
def test_benchmark_prints_its_table(tmp_path, command, expected):
    script, *options = command
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert expected in result.stdout
