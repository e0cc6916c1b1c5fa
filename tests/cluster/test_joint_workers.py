"""A search of several tasks by two workers, checked against the full grid of each task alone."""

import pytest
from mmq_search.api import search

import mmq

LIMITS = {"vqa": 30, "gqa": 24}
OPTIONS = {"model": "embedded-llava", "task_options": {"num_beams": 1}, "bits": [2, 3, 16]}


def test_workers_select_what_the_grids_of_all_tasks_select(store_uri, evaluated):
    study = search(**OPTIONS, task=list(LIMITS), limit=LIMITS, n_trials=9, max_drop=0.3, workers=2)
    assert evaluated == []  # by this process
    assert len(study.points) > 4
    grids = {
        task: {str(r.allocation): r for r in mmq.grid(**OPTIONS, task=task, limit=n).records()}
        for task, n in LIMITS.items()
    }
    worst = {
        name: min(
            100 * own[name].score.value / own["vit=16 llm=16"].score.value
            for own in grids.values()
        )
        for name in grids["vqa"]
    }
    for point in study.points:
        assert point.score == pytest.approx(worst[point.allocation])
    sizes = {name: record.size.stored_bpw for name, record in grids["vqa"].items()}
    kept = [name for name in worst if worst[name] >= 70 and name != "vit=16 llm=16"]
    assert 1 < len(kept) < 8
    assert study.selections()[0].point.allocation == min(kept, key=sizes.get)
    pruned = worst.keys() - {p.allocation for p in study.points}
    for name in pruned:  # something smaller is better
        assert any(sizes[k] <= sizes[name] and worst[k] > worst[name] for k in worst if k != name)
