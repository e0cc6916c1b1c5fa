"""A search of several tasks for an export target: what other commands make of its trials."""

import shutil

import mlflow
import pytest

import mmq
from mmq.analysis.budgets import Budget
from mmq.cli import main
from mmq.export.facts import file_sizes, read_facts, scored_protocol
from mmq.studies import joint_session

GIB = 1024**3
TASKS = {
    "model": "embedded-llava", "task": ["vqa", "gqa"], "limit": {"vqa": 5, "gqa": 4},
    "task_options": {"num_beams": 1}, "combine": "mean",
}  # fmt: skip


@pytest.fixture(scope="module")
def joint(tmp_path_factory, empty_store):
    """The study, in a store of its own."""
    pytest.importorskip("gguf", reason="needs mmq[gguf]")
    folder = tmp_path_factory.mktemp("joint")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield mmq.search(**TASKS, target="gguf", bits=[3, 16], n_trials=4, study="joint")
        mlflow.set_tracking_uri(None)


def shares(point):
    return {task.label: pytest.approx(task.share, abs=1e-4) for task in point.tasks}


def test_the_points_have_the_bytes_of_the_target_and_the_share_of_each_task(joint):
    assert {p.unit for p in joint.points} == {"GiB as gguf"}
    assert len(joint.points) == 4
    assert all([task.label for task in p.tasks] == ["vqa", "gqa"] for p in joint.points)
    assert "interval" in joint.conclusion.splitlines()[0] or "nothing" in joint.conclusion


def test_the_file_of_a_trial_has_the_size_that_was_searched(joint, tmp_path):
    point = next(p for p in joint.points if p.allocation == "vit=3 llm=3")
    out = tmp_path / "mine"
    main(["export", "--run", point.run_id, "--target", "gguf", "--no-verify", "--out", str(out)])
    assert sum(file_sizes(out).values()) == pytest.approx(point.cost.gib * GIB, rel=0.005)
    assert "kept/vqa" in (out / "README.md").read_text()
    assert "single word or phrase" in scored_protocol(read_facts(out)).template  # vqa's, the first


def test_a_trial_of_several_tasks_is_repeated_from_its_run_without_another_option(
    joint, monkeypatch, capsys
):
    monkeypatch.setattr(joint_session, "evaluate_quantized", None)  # its tasks are recorded
    point = next(p for p in joint.points if p.allocation == "vit=3 llm=3")
    main(["trial", "--run", point.run_id])
    lines = capsys.readouterr().out.splitlines()
    scores = dict(line.split(maxsplit=1) for line in lines if line.startswith("kept/"))
    assert scores.keys() == {"kept/vqa", "kept/gqa", "kept/worst", "kept/mean"}
    assert scores["kept/mean"].startswith(f"{point.score:.4g}"[:4])


def test_a_loaded_study_has_the_shares_their_intervals_and_the_certainty(joint):
    loaded = mmq.load_study("joint")
    there = {p.allocation: p for p in loaded.points}
    for point in joint.points:
        assert shares(there[point.allocation]) == {t.label: t.share for t in point.tasks}
        assert there[point.allocation].binding == point.binding
    (own,), (read,) = joint.results.selections(Budget()), loaded.selections()
    assert (read.chance is None) == (own.chance is None)
    pictures = [{label: len({*names}) for label, names in study.results.joint.clusters.items()}
                for study in (joint, loaded)]  # fmt: skip
    assert pictures[0] == pictures[1] == {"vqa": 5, "gqa": 4}


def test_status_shows_the_share_of_each_task(joint, capsys):
    main(["status", "joint"])
    out = capsys.readouterr().out
    assert "vqa (share)" in out
    assert "gqa (share)" in out


def test_the_parts_are_ranked_for_each_task_beside_all_of_them(joint):
    found = mmq.analyze(joint, trees=5, bootstrap=3, repeats=2)
    first, *others = found.analysis.tables
    assert [len(task.samples) for task in first.tasks] == [first.n] * len(others)
    assert [table.name for table in others] == [f"{first.name} vqa", f"{first.name} gqa"]
    assert first.samples is None
    assert all(table.samples is not None for table in others if table.scores.any())
    assert first.has_samples


def test_finer_parts_are_searched_with_the_losses_of_all_tasks(joint, monkeypatch):
    from mmq.studies import sensitivity

    counted, real = [], sensitivity._divergences

    def count(model, artifacts, calibration, widths):
        counted.append([request.sample_id for request, _ in calibration.pairs])
        return real(model, artifacts, calibration, widths)

    monkeypatch.setattr(sensitivity, "_divergences", count)
    study = mmq.search(
        **TASKS, granularity="type", bits=[3, 16], n_trials=1, calibration_samples=4
    )
    assert len(study.points) == 1
    assert len(counted[0]) == 4
