"""Trials read at once are the same as those that Optuna's classes read."""

import optuna
from mmq_search.storage import Storage
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial


def test_trials_read_at_once_are_those_that_optuna_reads(tmp_path, monkeypatch):
    storage = Storage(tmp_path).optuna
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["minimize", "maximize"]
    )
    space = {
        "int": IntDistribution(0, 9), "float": FloatDistribution(1e-3, 1, log=True),
        "category": CategoricalDistribution(["a", None, 3]),
    }  # fmt: skip
    params = {"int": 3, "float": 0.5, "category": None}
    study.add_trials([
        create_trial(params=params, distributions=space, values=[1.0, float("inf")]),
        create_trial(state=TrialState.PRUNED, user_attrs={"partial": {"score": [1, None]}},
                     intermediate_values={0: 0.5, 7: float("nan"), 9: float("-inf")}),
        create_trial(state=TrialState.FAIL, params=params, distributions=space),
    ])  # fmt: skip
    study.ask(space)
    running = study.ask()
    for k in range(3):
        study.add_trial(create_trial(values=[k, -k]))
    study.enqueue_trial(params)

    def both(*arguments):
        ours = storage._get_trials(study._study_id, *arguments)
        assert repr(ours) == repr(RDBStorage._get_trials(storage, study._study_id, *arguments))
        return ours

    monkeypatch.setattr("mmq_search.reading.AT_ONCE", 2)
    assert len(both(None, set(), -1)) == 9
    assert len(both((TrialState.COMPLETE,), set(), -1)) == 4
    first = study.trials[0]._trial_id
    assert len(both(None, {first, first + 4, running._trial_id, first + 8}, first + 6)) == 4
    assert both(None, set(), first + 99) == []
