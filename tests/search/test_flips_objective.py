"""A search for the models that change the fewest answers."""

import pytest
from logged_runs import refused

import mmq
from mmq.cli import main

TINY = {
    "model": "embedded-llava", "limit": 12, "task_options": {"num_beams": 1}, "bits": [2, 16],
    "n_trials": 4, "prune": False,
}  # fmt: skip


def test_flips_decide_the_front_the_selection_and_the_verdict(store_uri, capsys):
    study = mmq.search(**TINY, objective="flips", max_flips=0.4, study="f")
    records = {str(record.allocation): record for record in study.records()}
    flips = {k: r.metrics["flips"].value for k, r in records.items() if "flips" in r.metrics}
    assert len(flips) == 3
    points = {p.allocation: p for p in study.points if not p.is_unquantized}
    assert {name: p.score for name, p in points.items()} == pytest.approx(
        {name: 100 - value for name, value in flips.items()}
    )
    (selection,) = study.selections()
    kept = [p for name, p in points.items() if flips[name] <= 40]
    assert 0 < len(kept) < len(points)
    assert selection.point == min(kept, key=lambda p: (p.size, -p.score))
    assert "within 40% flips" in selection.headline
    assert ", agreement " in selection.headline
    assert "of the unquantized answers kept" in selection.text
    head = str(study).splitlines()[0]
    assert "agreement (95% interval)" in head
    assert "vqa/accuracy" in head
    assert {p.task_score for p in study.points} == {
        ("vqa/accuracy", record.score.value) for record in records.values()
    }

    loaded = mmq.load_study("f")
    assert {p.allocation: p.score for p in loaded.points} == pytest.approx(
        {p.allocation: p.score for p in study.points}, abs=1e-4
    )
    assert loaded.results.score_name == "agreement"
    capsys.readouterr()
    main(["status", "f"])
    assert "within 40% flips" in capsys.readouterr().out
    with pytest.raises(mmq.InputError, match="another objective"):
        mmq.search(**TINY, study="f")


def test_a_task_that_ranks_is_refused(store_uri, capsys):
    refused(["search", "--model", "embedded-retrieval", "--task", "retrieval", "--objective",
             "flips"])  # fmt: skip
    assert "no answers can flip" in capsys.readouterr().err
