"""The study's book-keeping, with a real Optuna database and made-up scores."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import PendingTrial, SearchStudy
from optuna.trial import TrialState
from trial_records import eval_spec, record_of

from mmq.analysis.budgets import Budget
from mmq.contracts import FileImage, Prediction
from mmq.errors import InputError
from mmq.models.size import Size
from mmq.record import Pruned, TrialDetails, TrialResult
from mmq.system.process import owner

SPACE = Space(("vit", "llm"), (2, 3, 4, 16))
UNIFORM = ["vit=16 llm=16", "vit=4 llm=4", "vit=3 llm=3", "vit=2 llm=2"]
EVAL_SPEC = eval_spec(samples=2)


def open_study(folder, name="s", identity=None, space=SPACE, setup=None):
    return SearchStudy(name, identity or EVAL_SPEC.identity(), space, folder, 0, setup)


def record(pending):
    bits = pending.allocation.as_dict()
    bpw = (bits["vit"] + 3 * bits["llm"]) / 4
    score = 80 * min(1, bits["llm"] / 4) * min(1, bits["vit"] / 3)
    return record_of(pending.allocation, score, size=Size(10, bpw, bpw))


def result(pending):
    predictions = tuple(
        Prediction(str(k), (FileImage(Path("x.jpg")),), "?", "yes", "yes", 1.0) for k in range(2)
    )
    return TrialResult(record(pending), TrialDetails((), predictions))


def finish(study, count):
    done = []
    for _ in range(count):
        pending = study.ask()
        if pending is None:
            break
        study.records.put(record(pending).in_run(f"run{pending.trial.number}"))
        study.tell(pending)
        done.append(str(pending.allocation))
    return done


def test_rules_of_thumb_come_first_uniform_ones_leading_and_none_twice(tmp_path):
    study = open_study(tmp_path)
    done = finish(study, 14)
    assert done[:4] == UNIFORM
    assert done[4:7] == ["vit=16 llm=4", "vit=16 llm=3", "vit=16 llm=2"]
    assert set(done[:7]) == set(study.rules)
    assert len(set(done)) == 14


def test_a_search_ends_when_the_space_is_exhausted(tmp_path):
    study = open_study(tmp_path)
    done = finish(study, 100)
    assert sorted(done) == sorted(str(a) for a in SPACE)
    assert study.ask() is None


def test_duplicates_get_the_result_of_the_original(tmp_path):
    study = open_study(tmp_path)
    finish(study, 7)
    study.study.enqueue_trial(SPACE.params(SPACE.rules()[2][1]))
    pending = study.ask()
    assert str(pending.allocation) not in UNIFORM
    twins = [t for t in study.study.trials if "duplicate_of" in t.user_attrs]
    known = study.evaluated()
    assert twins
    assert all(t.values == known[t.user_attrs["allocation"]].values for t in twins)
    assert len(study.points()) == 7


def test_a_study_resumes_with_its_completed_trials(tmp_path):
    first = finish(open_study(tmp_path), 6)
    study = open_study(tmp_path)
    assert sorted(study.evaluated()) == sorted(first)
    assert not set(finish(study, 5)) & set(first)
    point = study.points()[0]
    assert point.run_id == "run0"
    assert study.per_sample(point.allocation) == [point.score] * 2
    assert study.score_name == "vqa/accuracy"


def test_an_interrupted_trial_is_requeued_first(tmp_path):
    study = open_study(tmp_path)
    finish(study, 6)
    pending = study.ask()
    study.give_up(pending, retry=True)
    again = open_study(tmp_path).ask()
    assert again.allocation == pending.allocation


def stop(study, pending):
    whole = record(pending)
    why = Pruned(1, 2, "vit=4 llm=4", True, 30.0, 12.0)
    study.records.put(replace(whole, pruned=why).in_run("pruned"))


def test_a_pruned_trial_is_not_evaluated_again_after_a_restart(tmp_path):
    study = open_study(tmp_path)
    done = finish(study, 6)
    pending = study.ask()
    stop(study, pending)
    study.tell(pending)
    again, name = open_study(tmp_path), str(pending.allocation)
    assert list(again.pruned()) == [name]
    assert again.pruned()[name].state == TrialState.PRUNED
    score = record(pending).score.value
    assert again.pruned()[name].user_attrs["partial"] == {"score": score, "samples": 2}
    assert len(again.finished()) == 7
    assert sorted(p.allocation for p in again.points()) == sorted(done)
    again.study.enqueue_trial(SPACE.params(pending.allocation))
    rest = finish(again, 100)
    assert name not in rest
    assert sorted([*done, *rest, name]) == sorted(str(a) for a in SPACE)
    twins = [t for t in again.study.trials if "duplicate_of" in t.user_attrs]
    assert TrialState.PRUNED in [t.state for t in twins]


def test_a_trial_killed_after_it_was_stopped_is_pruned(tmp_path):
    said = killed_process(
        tmp_path,
        "finish(study, 5); pending = study.ask(); stop(study, pending); "
        "print(pending.allocation, flush=True)",
    )
    study = open_study(tmp_path)
    assert list(study.pruned()) == [said]
    assert len(study.points()) == 5


def killed_process(folder, work):
    """Run `work` on the study in a process that kills itself; what it printed."""
    code = (
        "import sys, os; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/..']; "
        "from test_study import *; "
        f"from pathlib import Path; study = open_study(Path(sys.argv[2])); {work}; "
        "os.kill(os.getpid(), 9)"
    )
    here = str(Path(__file__).parent)
    out = subprocess.run(
        [sys.executable, "-c", code, here, str(folder)], capture_output=True, text=True
    )
    assert out.returncode == -9, out.stderr
    return out.stdout.strip()


def test_a_record_that_cannot_be_read_is_evaluated_again(tmp_path, caplog):
    study = open_study(tmp_path)
    pending = study.ask()
    study.records.path(pending.allocation).write_text("")  # as a power cut can leave it
    study.give_up(pending, retry=True)
    assert "cannot be read" in caplog.text
    assert pending.allocation in [study.ask().allocation for _ in range(8)]


def test_a_trial_of_a_dead_process_is_failed_and_requeued(tmp_path):
    said = killed_process(tmp_path, "finish(study, 6); print(study.ask().allocation, flush=True)")
    study = open_study(tmp_path)
    assert TrialState.RUNNING not in [t.state for t in study.study.trials]
    assert str(study.ask().allocation) == said


def test_a_trial_killed_before_it_had_an_allocation_is_requeued(tmp_path):
    killed_process(tmp_path, "t = study.study.ask(); t.set_user_attr('owner', owner())")
    assert "vit=16 llm=16" in finish(open_study(tmp_path), 7)


def test_a_trial_killed_after_it_was_recorded_is_complete(tmp_path):
    said = killed_process(
        tmp_path,
        "finish(study, 5); pending = study.ask(); "
        "study.records.put(record(pending).in_run('kept')); "
        "print(pending.allocation, flush=True)",
    )
    study = open_study(tmp_path)
    assert study.evaluated()[said].user_attrs["run_id"] == "kept"
    assert len(study.points()) == 6


def test_an_interrupt_after_the_end_changes_nothing(tmp_path):
    study = open_study(tmp_path)
    pending = study.ask()
    study.records.put(record(pending).in_run("r"))
    study.tell(pending)
    study.give_up(pending, retry=True)
    assert list(study.evaluated()) == ["vit=16 llm=16"]


def test_a_failed_baseline_is_evaluated_when_the_study_resumes(tmp_path):
    study = open_study(tmp_path)
    for _ in range(3):
        study.give_up(study.ask(), retry=False)
    assert set(finish(open_study(tmp_path), 7)) == {str(a) for _, a in SPACE.rules()}


def test_an_allocation_that_another_process_evaluates_is_skipped(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    running = [first.ask().allocation for _ in range(8)]
    found = second.ask().allocation
    assert found not in running


def test_a_trial_of_a_living_process_is_left_alone(tmp_path):
    study = open_study(tmp_path)
    finish(study, 5)
    other = study.study.ask()
    other.set_user_attr("owner", owner())
    open_study(tmp_path)
    assert study.study.trials[other.number].state == TrialState.RUNNING


def test_another_eval_spec_under_the_same_name_is_refused(tmp_path):
    open_study(tmp_path)
    with pytest.raises(InputError, match="these differ: samples, seed"):
        open_study(tmp_path, identity=replace(EVAL_SPEC, samples=3, seed=7).identity())


def test_another_space_under_the_same_name_is_refused(tmp_path):
    open_study(tmp_path)
    with pytest.raises(InputError, match="another space, with bits"):
        open_study(tmp_path, space=Space(("vit", "llm"), (2, 4)))
    with pytest.raises(InputError, match="another space, with granularity component"):
        open_study(tmp_path, space=Space(("vit", "llm"), SPACE.bits, "fine"))


def test_a_study_of_another_size_axis_is_never_mixed_in(tmp_path):
    finish(open_study(tmp_path), 2)
    with pytest.raises(InputError, match="compares stored sizes.*--size-axis stored"):
        open_study(tmp_path, setup=SamplerSetup(SPACE, axis="nominal"))


def test_a_study_without_a_size_axis_has_nominal_sizes(tmp_path):
    study = open_study(tmp_path, setup=SamplerSetup(SPACE, axis="nominal"))
    finish(study, 2)
    storage = study.study._storage
    attrs = storage.get_study_user_attrs(study.study_id)
    old = open_study(tmp_path, "old", setup=SamplerSetup(SPACE, axis="nominal"))
    assert old.axis == attrs["size_axis"] == "nominal"
    study.exclusively(lambda: study.study.set_user_attr("size_axis", None))
    with pytest.raises(InputError, match="compares nominal sizes"):
        open_study(tmp_path)


def test_the_size_axis_is_what_optuna_minimizes(tmp_path):
    for axis, sizes in (("stored", [16.5, 4.5]), ("nominal", [16.0, 4.0])):
        study = open_study(tmp_path, axis, setup=SamplerSetup(SPACE, axis=axis))
        for _ in range(2):
            pending = study.ask()
            found = record(pending)
            larger = replace(found.size, stored_bpw=found.size.bpw + 0.5)
            study.records.put(replace(found, size=larger).in_run("r"))
            study.tell(pending)
        points = study.points()
        assert [p.size for p in points] == sizes
        assert [(p.stored_bpw - p.bpw) for p in points] == [0.5, 0.5]


def test_a_trial_larger_than_planned_is_evaluated_only_under_a_larger_budget(tmp_path):
    study = open_study(tmp_path, setup=bounded(5.0))
    finish(study, 2)
    pending = study.ask()
    study.reject_too_large(pending, 5.5)
    again = open_study(tmp_path, setup=bounded(5.0))
    assert str(pending.allocation) not in finish(again, 100)
    assert str(pending.allocation) in finish(open_study(tmp_path, setup=bounded(6.0)), 100)


def bounded(most):
    return SamplerSetup(SPACE, Budget(max_bpw=most), (1, 3), 4)


def test_the_unquantized_model_is_evaluated_before_anything_else(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    wanted = SPACE.baseline
    pending = first.ask(first=wanted)
    assert pending.allocation == wanted
    assert second.ask(first=wanted) is None  # another process evaluates it
    first.give_up(pending, retry=False)  # it failed: the others still wait in the queue
    pending = second.ask(first=wanted)
    assert pending.allocation == wanted
    second.records.put(record(pending).in_run("r"))
    second.tell(pending)
    assert set(finish(second, 3)) == set(UNIFORM[1:])


def test_a_baseline_outside_the_space_is_a_point_but_not_a_trial(tmp_path):
    space = Space(("vit", "llm"), (3, 4))
    study = open_study(tmp_path, space=space)
    aside = record(PendingTrial(None, space.baseline)).in_run("aside")
    study.save_baseline(study.records.put(aside))
    done = finish(study, 100)
    assert len(done) == 4
    assert sorted(p.allocation for p in study.points()) == sorted([*done, "vit=16 llm=16"])
    assert study.per_sample("vit=16 llm=16") == [80, 80]
    (answer,) = study.results(["a", "b"], Budget(), 4).selections()
    assert answer.point.allocation == "vit=3 llm=4"
