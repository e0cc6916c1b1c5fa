"""The benchmark scripts run, on a few samples, and print their tables."""

import os
from functools import partial
from pathlib import Path

import pytest
from legacy_solvers import auto_gptq, autoawq

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
REQUIRED = {  # by benchmark, what skips it where a package is not installed
    "gptq_speed.py": auto_gptq,
    "awq_speed.py": autoawq,
    "lmms_overhead.py": partial(pytest.importorskip, "lmms_eval", reason="needs lmms-eval"),
    "engines.py": partial(pytest.importorskip, "xllamacpp", reason="needs mmq[gguf]"),
}
TINY = BENCHMARKS.parent / "plugins/mmq_plugins/embedded/assets/blip2/config.json"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["trial_time.py", "--limit", "8", "--trials", "1", "--case", "embedded-llava/gqa"],
            "| embedded-llava | gqa | warm | ",
        ),
        (
            ["memory.py", "--config", str(TINY), "--most", "inf"],
            "| 4 images captioned at 4 bits | ",
        ),
        (["analysis.py", "--jobs", "1", "--bootstrap", "2"], "| 448 | 1 | "),
        (["lmms_overhead.py", "--samples", "4", "--trials", "1"], "| lmms:chartqa | "),
        (
            [
                "fine_allocations.py",
                "--case",
                "embedded-llava/gqa",
                "--limit",
                "4",
                "--bits",
                "4,16",
                "--granularity",
                "type",
            ],
            "| embedded-llava/gqa | rtn | 4 | 4 | ",
        ),
        (["bulk_import.py", "--rows", "3", "--threads", "1"], "| client, 1 threads | "),
        (["loading.py", "--questions", "2000"], "| mmq, all samples | "),
        (
            ["embedded_model.py", "--limit", "4", "--model", "embedded-blip2"],
            "| rtn, group-size 64 | vit+qformer+llm | ",
        ),
        (
            [
                "quantization.py",
                "--sections",
                "models",
                "--models",
                "embedded-llava",
                "--quantizers",
                "rtn",
                "gptq",
                "--widths",
                "4",
                "--pairs",
                "4",
            ],
            "| embedded-llava | gptq | ",
        ),
        (
            [
                "quantization.py",
                "--sections",
                "blocks",
                "--parts",
                "qformer",
                "--quantizers",
                "gptq",
                "--widths",
                "4",
                "--pairs",
                "1",
            ],
            "| Q-Former | gptq | 32 | ",
        ),
        (
            "quantization.py --sections memory --blocks 1 --quantizers gptq --components qformer "
            f"--widths 4 --pairs 4 --config {TINY}".split(),
            "| qformer | 1 | gptq | ",
        ),
        (
            [
                "gptq_speed.py",
                "--shape",
                "64x64",
                "--tokens",
                "128",
                "--repeats",
                "1",
                "--threads",
                "1",
                "--group-size",
                "0",
            ],
            "| 64x64 | row | 1 | ",
        ),
        (
            [
                "awq_speed.py",
                "--shape",
                "64x128",
                "--tokens",
                "256",
                "--repeats",
                "1",
                "--threads",
                "1",
            ],
            "| 64x128 | 128 | 1 | ",
        ),
        (
            [
                "engines.py",
                "--targets",
                "gguf",
                "--width",
                "256",
                "--blocks",
                "2",
                "--repeats",
                "1",
            ],
            "| llama.cpp | gguf | 4 | ",
        ),
        pytest.param(
            [
                "scale.py",
                "--workers",
                "2",
                "--trials",
                "2",
                "--sleep",
                "0.1",
                "--rate-seconds",
                "1",
            ],
            "| the lock of one search | ",
            marks=pytest.mark.cluster,
        ),
        pytest.param(
            ["drills_cluster.py", "--only", "local", "--repeat", "1"],
            "3 kills: 0 units doubled, 0 lost",
            marks=pytest.mark.cluster,
        ),
    ],
)
def test_benchmark_prints_its_table(tmp_path, fork_server, command, expected):
    script, *options = command
    if script in REQUIRED:
        REQUIRED[script]()
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    path = str(BENCHMARKS / script)
    result = fork_server.run(*options, script=path, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr[-2000:]
    assert expected in result.stdout
