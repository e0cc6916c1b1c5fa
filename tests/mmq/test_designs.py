"""The allocations of planned studies, and the commands that run them."""

import itertools
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mmq.cli import main
from mmq.studies.designs import ablation, grid, sweep

BLIP2 = ["vit", "qformer", "llm"]
TINY = ["--model", "embedded-llava", "--limit", "3", "--seed", "5"]


def test_the_sweep_is_algorithm_1():
    result = list(sweep(BLIP2, [2, 4, 6, 8]))
    assert len(result) == len(set(result)) == 4 * 7 * 7 * 3
    assert len(list(sweep(["vit", "qformer"], [2, 4, 6, 8]))) == 4 * 3 * 7 * 3
    for allocation in result:
        widths = allocation.widths(BLIP2)
        chosen = {part for part, bits in widths.items() if bits != 16}
        assert len({widths[part] for part in chosen}) == 1
        sides = [sorted({part[k] for part in chosen}) for k in range(3)]
        assert chosen == set(itertools.product(*sides))  # a product of three subsets


def test_ablation_is_singles_and_pairs():
    result = [str(a) for a in ablation(BLIP2, [2, 4])]
    assert len(result) == len(set(result)) == 3 * 2 + 3 * 4
    assert "vit=16 qformer=4 llm=16" in result
    assert "vit=2 qformer=16 llm=4" in result
    assert not any("16" not in text for text in result)
    assert len(list(ablation(["vit", "llm"], [2, 4]))) == 2 * 2 + 4


def test_the_grid_has_every_combination_once():
    result = [str(a) for a in grid(BLIP2, [2, 4, 16])]
    assert len(result) == len(set(result)) == 27
    assert result[0] == "vit=16 qformer=16 llm=16"
    assert result[-1] == "vit=2 qformer=2 llm=2"


@pytest.mark.parametrize(
    ("command", "bits", "count"),
    [("sweep-uniform", "8", 64), ("ablate", "4,8", 9), ("grid", "8,16", 4)],
)
def test_every_study_is_run_once_and_its_front_logged(command, bits, count, store_uri, capsys):
    main([command, *TINY, "--quantizer", "rtn", "--bits", bits])
    out = capsys.readouterr().out
    assert f"{count} allocations" in out
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    trials = [run for run in runs if run.data.tags["mmq.kind"] == "trial"]
    (study,) = [run for run in runs if run.data.tags["mmq.kind"] == "study"]
    assert len(trials) == count
    assert len({run.data.tags["mmq.allocation"] for run in trials}) == count
    assert study.data.metrics["trials"] == count
    table = Path(client.download_artifacts(study.info.run_id, "front.json"))
    front = json.loads(table.read_text())
    assert len(front["data"]) == study.data.metrics["front_size"]
    names = {name for run in trials for name in run.data.params if name.startswith("bits.")}
    if command == "sweep-uniform":
        assert len(names) == 12
        assert "bits.vit.front.attn" in names
    else:
        assert names == {"bits.vit", "bits.llm"}


def test_another_study_under_the_same_name_is_refused(store_uri, capsys):
    own = [*TINY, "--quantizer", "rtn", "--bits", "8", "--study", "mine"]
    main(["ablate", *own])
    for command in (["grid", *own], ["ablate", *own, "--group-size", "64"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "study: 'mine' exists already" in capsys.readouterr().err
    main(["ablate", *own, "--bits", "4,8"])  # more widths of the same question
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    runs = client.search_runs([experiment])
    assert sum(run.data.tags["mmq.kind"] == "study" for run in runs) == 1
