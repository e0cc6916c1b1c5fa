"""The sampler with other threads, running trials, and processes that share a study."""

import multiprocessing
import time

import optuna
import pytest
from mmq_search.front_sampler import FrontSampler
from optuna.storages import RDBStorage
from test_front_sampler import allocations, plain, study_of, suggest


def test_concurrent_trials_get_different_proposals():
    study = study_of(FrontSampler(seed=0))
    study.optimize(plain, n_trials=8)
    running = [study.ask() for _ in range(5)]
    assert len({tuple(suggest(trial).values()) for trial in running}) == 5


def test_threads_get_different_proposals():
    def objective(trial):
        values = plain(trial)
        time.sleep(0.01)
        return values

    study = study_of(FrontSampler(seed=0))
    study.optimize(objective, n_trials=6)
    study.optimize(objective, n_trials=24, n_jobs=4)
    assert len(set(allocations(study))) == 30


def test_processes_of_one_seed_begin_an_empty_study_differently(tmp_path):
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
    optuna.create_study(study_name="s", storage=storage, directions=["minimize", "maximize"])
    same = [
        optuna.load_study(study_name="s", storage=storage, sampler=FrontSampler(seed=0))
        for _ in range(4)
    ]
    trials = [study.ask() for study in same]
    assert len({tuple(suggest(trial, "abcdef").values()) for trial in trials}) == 4


def test_the_space_is_taken_from_what_runs_or_failed_until_something_is_finished():
    study = study_of(FrontSampler(seed=0))
    suggest(study.ask())
    running = [study.ask() for _ in range(4)]
    assert all(trial.relative_params for trial in running)

    def fails(trial):
        suggest(trial)
        raise RuntimeError

    study = study_of(FrontSampler(seed=0))
    study.optimize(fails, n_trials=343, catch=RuntimeError)
    assert len(set(allocations(study))) == 343


def join(url, seconds):
    def objective(trial):
        values = plain(trial)
        time.sleep(seconds)
        return values

    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 100}})
    study = optuna.load_study(study_name="shared", storage=storage, sampler=FrontSampler(seed=0))
    study.optimize(objective, n_trials=25)


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_processes_of_one_seed_get_different_proposals(seconds, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    directions = ["minimize", "maximize"]
    study = optuna.create_study(study_name="shared", storage=url, directions=directions)
    study.sampler = FrontSampler(seed=1)
    study.optimize(plain, n_trials=1)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=join, args=(url, seconds)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(set(allocations(study))) == 51


class Overtaken(FrontSampler):
    """A sampler during whose proposal another trial of the study gets the same parameters."""

    def __init__(self, other, **options):
        super().__init__(**options)
        self.other, self.given = other, []

    def _next(self, study, trial, search_space):
        found = super()._next(study, trial, search_space)
        if not self.given:
            self.given.append(suggest(self.other.ask()))
            assert self.given == [found]  # it would be the same
        return found


def test_allocations_that_another_process_got_meanwhile_are_not_proposed(tmp_path):
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["minimize", "maximize"]
    )
    study.sampler = FrontSampler(seed=1)
    study.optimize(plain, n_trials=8)
    others = optuna.load_study(study_name="s", storage=storage, sampler=FrontSampler(seed=0))
    study.sampler = Overtaken(others, seed=0)
    assert suggest(study.ask()) not in study.sampler.given
