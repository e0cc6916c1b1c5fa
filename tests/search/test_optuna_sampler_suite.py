"""FrontSampler passes the suite that Optuna ships for implementers of samplers."""

import numpy as np
import optuna
import pytest
from mmq_search.front_sampler import FrontSampler
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

SPACES = {
    "float": FloatDistribution(-1.0, 1.0),
    "log": FloatDistribution(1e-7, 1.0, log=True),
    "step": FloatDistribution(-10.2, 10.2, step=0.1),
    "int": IntDistribution(3, 9, step=2),
    "log_int": IntDistribution(1, 100, log=True),
    "category": CategoricalDistribution([1, "a", None]),
}


class TestFrontSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    """Optuna's suite; studies with one objective are sampled at random."""

    @pytest.fixture
    def sampler(self):
        return lambda: FrontSampler(seed=0, n_startup_trials=2)


# Optuna's relative cases have one objective: here are the same questions for two
@pytest.fixture
def study():
    sampler = FrontSampler(seed=0, n_startup_trials=2)
    return optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)


@pytest.mark.parametrize("second", SPACES)
@pytest.mark.parametrize("first", SPACES)
def test_every_proposal_lies_in_its_distributions_and_has_plain_types(study, first, second):
    space = {"x": SPACES[first], "y": SPACES[second]}
    for number in range(5):
        trial = study.ask(space)
        for name, value in trial.params.items():
            assert space[name]._contains(space[name].to_internal_repr(value))
            assert not isinstance(value, np.generic)
        study.tell(trial, [float(number), float(number % 3)])


@pytest.mark.parametrize(("low", "high"), [(0, 5), (0, 20), (20, 30)])
def test_a_range_may_change_during_a_study(study, low, high):
    def objective(bounds):
        return lambda trial: (trial.suggest_float("x", *bounds), trial.suggest_int("y", *bounds))

    study.optimize(objective((0, 10)), n_trials=4)
    study.optimize(objective((low, high)), n_trials=4)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 8


def test_a_study_with_one_objective_is_sampled_at_random_with_a_warning(caplog):
    study = optuna.create_study(study_name="alone", sampler=FrontSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 3), n_trials=12)
    assert len(study.trials) == 12
    assert caplog.text.count("Study alone has one") == 1


def test_a_study_with_three_objectives_is_refused():
    study = optuna.create_study(directions=["minimize"] * 3, sampler=FrontSampler(seed=0))
    with pytest.raises(ValueError, match="needs two objectives, size and score, not 3"):
        study.optimize(lambda trial: [trial.suggest_int("x", 0, 3)] * 3, n_trials=2)
