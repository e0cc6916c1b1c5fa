"""The sampler in plain Optuna studies: what it promises on tables of several shapes."""

import itertools
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
from mmq_search.front_sampler import FrontSampler
from mmq_search.front_sampler.grid import Grid
from mmq_search.front_sampler.improvement import hypervolume
from mmq_search.front_sampler.observations import Objectives
from optuna.trial import TrialState

WIDTHS = (2, 3, 4, 5, 6, 8, 16)
WEIGHTS = {"vit": 0.3, "qformer": 0.1, "llm": 0.6}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def size(bits):
    return sum(WEIGHTS[name] * b for name, b in bits.items())


def score(bits):
    ruined = {"vit": 2.5, "qformer": 1, "llm": 3}
    return 80 * np.exp(-sum(np.exp(1.6 * (ruined[name] - b)) for name, b in bits.items()))


def study_of(sampler, directions=("minimize", "maximize")):
    return optuna.create_study(directions=list(directions), sampler=sampler)


def suggest(trial, names=WEIGHTS):
    return {name: trial.suggest_categorical(name, WIDTHS) for name in names}


def plain(trial):
    bits = suggest(trial)
    return size(bits), score(bits)


def allocations(study):
    return [tuple(t.params.values()) for t in study.trials]


# --- in studies ----------------------------------------------------------------------------------
def distinct_until(sampler, share, starts=4, most=200):
    names = list(WEIGHTS)
    table = [dict(zip(names, bits, strict=True)) for bits in itertools.product(WIDTHS, repeat=3)]
    reference = (16.0, 0.0)
    best = hypervolume(*(np.array([f(b) for b in table]) for f in (size, score)), reference)
    study, seen = study_of(sampler), {}
    rng = np.random.default_rng(starts)
    for _ in range(starts):
        study.enqueue_trial({name: int(rng.choice(WIDTHS)) for name in names})
    while len(seen) < most:
        trial = study.ask()
        values = plain(trial)
        study.tell(trial, values)
        seen[tuple(trial.params.values())] = values
        sizes, scores = np.array(list(seen.values())).T
        if hypervolume(sizes, scores, reference) >= share * best:
            break
    return len(seen)


def test_it_needs_far_fewer_evaluations_than_random_search():
    own = [distinct_until(FrontSampler(seed=s), 0.98) for s in range(3)]
    other = [distinct_until(optuna.samplers.RandomSampler(seed=s), 0.98) for s in range(3)]
    assert max(own) < 40
    assert np.median(own) < np.median(other) / 2


def test_nothing_is_proposed_twice_and_optimize_stops_when_all_was():
    study = study_of(FrontSampler(seed=0))

    def objective(trial):
        return trial.suggest_int("a", 0, 4) + trial.suggest_int("b", 0, 2), 1.0

    study.optimize(objective, n_trials=99)
    assert len(study.trials) == len(set(allocations(study))) == 15


def test_directions_and_the_order_of_objectives_do_not_matter():
    found = []
    for flip in (False, True):
        study = study_of(
            FrontSampler(seed=3, size_objective=1 if flip else None),
            ("maximize", "maximize") if flip else ("minimize", "maximize"),
        )

        def objective(trial, flip=flip):
            small, high = plain(trial)
            return (high, -small) if flip else (small, high)

        study.optimize(objective, n_trials=12)
        found.append(allocations(study))
    assert found[0] == found[1]


def test_failed_trials_are_not_proposed_again_and_pruned_ones_are_learned_from():
    study = study_of(FrontSampler(seed=1))

    def objective(trial):
        bits = suggest(trial)
        if bits["llm"] == 8:
            raise RuntimeError
        if bits["vit"] == 2:
            trial.set_user_attr("partial", {"score": 0.5})
            raise optuna.TrialPruned
        return size(bits), score(bits)

    study.optimize(objective, n_trials=40, catch=RuntimeError)
    assert len(set(allocations(study))) == 40
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert len(pruned) < 12  # a seventh of the space would be


def test_known_bounds_are_respected_and_the_bounded_selection_is_found():
    study = study_of(FrontSampler(seed=0, size=size, max_size=5.0))
    study.optimize(plain, n_trials=25)
    assert all(t.values[0] <= 5 for t in study.trials[1:])  # the first's space was not known yet
    table = [dict(zip(WEIGHTS, b, strict=True)) for b in itertools.product(WIDTHS, repeat=3)]
    best = max(score(bits) for bits in table if size(bits) <= 5)
    assert max(t.values[1] for t in study.trials if t.values[0] <= 5) == pytest.approx(best)


def test_the_smallest_above_a_score_is_found():
    study = study_of(FrontSampler(seed=0, min_score=78.0))
    study.optimize(plain, n_trials=30)
    table = [dict(zip(WEIGHTS, b, strict=True)) for b in itertools.product(WIDTHS, repeat=3)]
    least = min(size(bits) for bits in table if score(bits) >= 78)
    assert min(t.values[0] for t in study.trials if t.values[1] >= 78) == pytest.approx(least)


def test_other_limits_known_beforehand_are_respected():
    sampler = FrontSampler(seed=0, limits=[(lambda bits: bits["vit"] + bits["llm"], 10)])
    study = study_of(sampler)
    study.optimize(plain, n_trials=20)
    assert all(t.params["vit"] + t.params["llm"] <= 10 for t in study.trials[1:])


def test_constraints_that_trials_set_are_learned():
    study = study_of(FrontSampler(seed=0))

    def objective(trial):
        bits = suggest(trial)
        trial.set_constraint("seconds", bits["vit"] + bits["qformer"] - 12.5)
        return size(bits), score(bits)

    study.optimize(objective, n_trials=40)
    late = [t for t in study.trials[15:] if t.params["vit"] + t.params["qformer"] > 12.5]
    assert len(late) < 8  # of 25; two fifths of the space are forbidden


def test_sixty_parts_are_searched():
    names = [f"part{k}" for k in range(60)]
    study = study_of(FrontSampler(seed=0))

    def objective(trial):
        levels = np.array([trial.suggest_int(name, 0, 4) for name in names])
        return float(levels.sum()), float(np.exp(-np.exp(-1.5 * levels - 2).sum()))

    study.enqueue_trial(dict.fromkeys(names, 4))
    study.enqueue_trial(dict.fromkeys(names, 0))
    study.optimize(objective, n_trials=12)
    assert len(set(allocations(study))) == 12
    assert any(t.values[1] > 0.6 and t.values[0] <= 150 for t in study.trials)  # of 240


def test_the_same_seed_proposes_the_same():
    found = []
    for _ in range(2):
        study = study_of(FrontSampler(seed=5))
        study.optimize(plain, n_trials=9)
        found.append(allocations(study))
    assert found[0] == found[1]


def test_scores_that_are_losses_or_constant_are_handled():
    for values in ((1.0, 1.0), (0.0, 0.0), (-1e6, -3.0)):
        study = study_of(FrontSampler(seed=0))
        study.optimize(lambda t, v=values: (plain(t)[0], v[t.number % 2]), n_trials=12)
        assert len(set(allocations(study))) == 12


def test_the_documented_example_runs():
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    names = {}
    exec(code, names)
    assert len(set(allocations(names["study"]))) == 20


# --- odd studies ---------------------------------------------------------------------------------
def test_failing_regions_are_abandoned():
    def objective(trial):
        bits = suggest(trial)
        if min(bits.values()) < 4:  # 218 of 343 allocations
            raise RuntimeError
        return size(bits), score(bits)

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=40, catch=RuntimeError)
    states = [t.state for t in study.trials[10:]]
    assert states.count(TrialState.COMPLETE) > len(states) / 2


def test_where_all_scores_are_alike_the_largest_is_tried():
    study = study_of(FrontSampler(seed=0))
    for bits in WIDTHS[:5]:
        study.enqueue_trial(dict.fromkeys(WEIGHTS, bits))
    study.optimize(lambda t: (size(suggest(t)), 2.0), n_trials=6)
    assert set(study.trials[-1].params.values()) == {16}


def test_a_first_trial_that_is_pruned_or_fails_is_no_obstacle():
    def objective(trial):
        values = plain(trial)
        if trial.number == 0:
            raise optuna.TrialPruned
        if trial.number == 1:
            return float("nan"), 1.0
        return values

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=10)
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == 8


@pytest.mark.parametrize("value", [3.0, float("inf")])
def test_studies_continue_while_every_trial_breaks_a_constraint(value):
    def objective(trial):
        trial.set_constraint("memory", value)
        return plain(trial)

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=9)
    assert len(set(allocations(study))) == 9


def test_parameters_that_only_some_trials_have_do_not_end_a_study():
    def objective(trial):
        a = trial.suggest_int("a", 0, 1)
        b = trial.suggest_int("b" if a else "c", 1, 9)
        return float(a + b), float(b)

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=15)
    assert len(study.trials) == 15


def test_everything_that_was_enqueued_is_evaluated():
    study = study_of(FrontSampler(seed=0))
    for a, b in itertools.product(range(3), repeat=2):
        study.enqueue_trial({"a": a, "b": b})
    study.optimize(
        lambda t: (t.suggest_int("a", 0, 2) + t.suggest_int("b", 0, 2), 1.0), n_trials=20
    )
    assert len(study.trials) == 9


def test_enqueued_parameters_are_completed_without_repeats():
    study = study_of(FrontSampler(seed=0))
    for _ in range(8):
        study.enqueue_trial({"llm": 4})
    study.optimize(plain, n_trials=14)
    assert [t.params["llm"] for t in study.trials[:8]] == [4] * 8
    assert len(set(allocations(study)[1:])) == 13  # the first one's space was not known yet


def test_a_space_of_mostly_collapsed_allocations_is_climbed():
    names = [f"part{k}" for k in range(6)]

    def objective(trial):
        levels = [trial.suggest_int(name, 0, 6) for name in names]
        return float(sum(levels)), 80.0 if min(levels) >= 3 else 0.0

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=15)
    assert max(t.values[1] for t in study.trials) == 80


def test_steps_that_do_not_fit_in_binary_are_searched_to_the_end():
    def objective(trial):
        a = trial.suggest_float("a", 0.1, 0.3, step=0.1)
        b = trial.suggest_float("b", 0.1, 0.7, step=0.1)
        return a + b, a * b

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=50)
    assert len(study.trials) == len(set(allocations(study))) == 21


def test_a_foreign_attribute_of_a_pruned_trial_is_not_a_score():
    def objective(trial):
        values = plain(trial)
        if trial.number % 2:
            trial.set_user_attr("partial", True if trial.number % 4 == 1 else {"n": 3})
            raise optuna.TrialPruned
        return values

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=12)
    assert len(study.trials) == 12


def test_of_two_minimized_objectives_the_sum_is_taken_for_the_size():
    study = study_of(FrontSampler(seed=0), ("minimize", "minimize"))
    study.optimize(lambda t: (-plain(t)[1], size(t.params)), n_trials=12)
    grid = Grid(dict.fromkeys(WEIGHTS, WIDTHS))
    assert Objectives.of(study, None, grid).size == 1


def test_a_sampler_can_be_pickled_after_use():
    sampler = FrontSampler(seed=0, size=size)
    study_of(sampler).optimize(plain, n_trials=6)
    study = study_of(pickle.loads(pickle.dumps(sampler)))
    study.optimize(plain, n_trials=6)
    assert len(set(allocations(study))) == 6


def test_a_profile_that_does_not_fit_is_refused():
    study = study_of(FrontSampler(seed=0, profile={"vit": [1.0, 0.5]}))
    with pytest.raises(ValueError, match="profile: '.*' needs 7 losses of zero or more"):
        study.optimize(plain, n_trials=8)
