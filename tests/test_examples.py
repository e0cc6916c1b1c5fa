"""The examples do what they print: their commands are parsed, their scripts run in plain bash."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_cluster import slurm_cluster

from mmq.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
SLURM = (EXAMPLES / "slurm.sh").read_text()
SECRET, JOB = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())


def commands():
    joined = SLURM.replace("\\\n", " ")
    (line,) = re.findall(r"^mmq (.*) &$", joined, re.MULTILINE)
    yield pytest.param(shlex.split(line), id="slurm.sh")
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mmq"]
    yield pytest.param(container["args"], id="kubernetes.yaml")


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_examples_are_commands_of_mmq(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model", "embedded-blip2", "--data", "scenes", "--device", "cpu", "--limit", "2"]
    main([*command, *small, "--dry-run", "true"])
    printed = capsys.readouterr().out
    assert re.search(r"^mmq search .*--n-trials 200 .*--study coco-gptq", printed)


def test_the_slurm_script_requeues_its_trial_before_the_time_limit(tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    programs = {
        "mmq": 'echo "$MMQ_WORKER_PLACE $MMQ_HOME $1" > started\n'
        "trap 'exit 130' TERM\nkill -USR1 $PPID\nwhile true; do /bin/sleep 0.05; done",
        "scontrol": 'echo "$@" > requeued',
        "sleep": "true",
    }
    for name, text in programs.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_folder / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "USER": "me",
        "HOME": str(tmp_path),
        "SLURM_TMPDIR": "/scratch", "SLURMD_NODENAME": "n1", "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "4",
    }  # fmt: skip
    ended = subprocess.run(["bash", "-c", SLURM], env=env, cwd=tmp_path, timeout=600, check=False)
    assert ended.returncode == 130
    assert (tmp_path / "started").read_text() == "n1 (SLURM job 7_3) /scratch/mmq-me search\n"
    assert (tmp_path / "requeued").read_text() == "requeue 7_3\n"


@pytest.mark.cluster
def test_the_slurm_script_runs_on_a_real_slurm_and_is_queued_again(tmp_path):
    program = tmp_path / "mmq"
    program.write_text(
        "#!/bin/bash\nname=given-back-$SLURM_ARRAY_TASK_ID\n[ -e $name ] && exit 0\n"
        "trap 'touch $name; exit 130' TERM\ntouch started-$SLURM_ARRAY_TASK_ID\n"
        "while true; do sleep 0.1; done\n"
    )
    program.chmod(0o755)

    def appear(*names):
        end = time.monotonic() + 600
        while missing := [name for name in names if not (tmp_path / name).exists()]:
            assert time.monotonic() < end, missing
            time.sleep(0.1)

    with slurm_cluster() as cluster:
        job = cluster.run(
            "sbatch", "--parsable", f"--export=ALL,PATH={tmp_path}:{cluster.env['PATH']}",
            f"--chdir={tmp_path}", "--array=1-2", "--cpus-per-task=1", str(EXAMPLES / "slurm.sh"),
        ).strip()  # fmt: skip
        appear("started-1", "started-2")
        cluster.run("scancel", "--batch", "--signal=USR1", job)  # as before the time limit
        appear("given-back-1", "given-back-2")
        end = time.monotonic() + 600
        while (shown := cluster.run("scontrol", "show", "job", job)).count("Restarts=1") < 2:
            assert time.monotonic() < end, shown
            time.sleep(0.5)


def test_the_kubernetes_job_is_indexed_and_has_time_and_secrets():
    spec = JOB["spec"]
    pod = spec["template"]["spec"]
    assert (JOB["kind"], spec["completionMode"]) == ("Job", "Indexed")
    assert spec["completions"] == spec["parallelism"] == 8
    assert pod["terminationGracePeriodSeconds"] >= 90  # to re-queue a trial
    env = {each["name"]: each for each in pod["containers"][0]["env"]}
    for name in ("MMQ_STORAGE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        reference = env[name]["valueFrom"]["secretKeyRef"]
        assert reference["name"] == SECRET["metadata"]["name"]
        assert reference["key"] in SECRET["stringData"]
    assert SECRET["stringData"]["storage"].startswith("postgresql://")


@pytest.mark.cluster
@pytest.mark.parametrize("version", ["1.29", "1.32", "1.35"])
def test_the_kubernetes_manifests_match_the_schemas_of_kubernetes(version):
    package = pytest.importorskip(
        "kubernetes_validate", reason="not installed: pip install kubernetes-validate"
    )
    for manifest in (SECRET, JOB):
        package.validate(manifest, version, strict=True)


@pytest.mark.cluster
def test_front_sampler_proposes_inside_ray_tune(monkeypatch):
    pytest.importorskip("ray.tune", reason="ray[tune] is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import ray_tune

    search = ray_tune.search_algorithm()
    proposals = []
    for number in range(len(ray_tune.BITS) ** 2):
        config = search.suggest(str(number))
        size = (config["vit"] + 3 * config["llm"]) / 4
        score = 100 - 2.0 ** -config["vit"] - 2.0 ** (4 - config["llm"])
        search.on_trial_complete(str(number), {"bits_per_weight": size, "score": score})
        proposals.append((config["vit"], config["llm"]))
    assert len(set(proposals)) == len(proposals)  # none twice: Optuna's TPE repeats itself
    assert sys.modules["ray_tune"].SPACE.keys() == {"vit", "llm"}
