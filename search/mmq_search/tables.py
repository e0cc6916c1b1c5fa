"""Optuna's tables in a database, behind the one door."""

import functools
import inspect
import re
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState

from mmq.errors import InputError
from mmq_search.patience import Door
from mmq_search.reading import read_trials

T = TypeVar("T")
GONE = "the study is not in the database any more: somebody deleted it"
UNREADABLE = "what it holds of a study is damaged, or another program's"


class Tables(RDBStorage):
    """Optuna's storage, every method of which waits while the database is away."""

    def __init__(self, door: Door, *args: Any, **kwargs: Any) -> None:
        self.door = door
        self._parameters: list[tuple[Any, ...]] | None = None
        super().__init__(*args, **kwargs)

    def through_door(self, name: str, call: Callable[[], T]) -> T:
        """What a method of this name returns, by `call`; StorageError for what is not there."""
        try:
            return self.door.patiently(call)
        except InputError:
            raise
        except KeyError:
            if name == "get_study_id_from_name":  # how Optuna asks whether there is one
                raise
            raise self.door.explain(GONE) from None
        except (ValueError, LookupError, TypeError) as error:
            if "get" not in name:
                raise
            raise self.door.explain(f"{UNREADABLE}: {error}") from None

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; written once also where the answer to the first attempt was lost."""
        attempts = 0

        def write() -> bool:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and state.is_finished():
                now = RDBStorage.get_trial(self, trial_id)
                if now.state == state and now.values == (None if values is None else [*values]):
                    return True
            return bool(RDBStorage.set_trial_state_values(self, trial_id, state, values))

        return self.through_door("set_trial_state_values", write)

    @contextmanager
    def parameters_at_once(self) -> Iterator[None]:
        """Write the parameters that this block sets at its end, in one transaction, not in many.

        For the thread that asks, which has the study's lock.
        """
        written: list[tuple[Any, ...]] = []
        self._parameters = written
        try:
            yield
        finally:
            self._parameters = None
        if written:
            self.through_door("set_trial_param", lambda: self._write(written))

    def _write(self, parameters: Sequence[tuple[Any, ...]]) -> None:
        with _create_scoped_session(self.scoped_session, True) as session:
            for each in parameters:
                self._set_trial_param_without_commit(session, *each)

    def _set_trial_param(self, *parameter: Any) -> None:
        if self._parameters is None:
            write = functools.partial(RDBStorage._set_trial_param, self, *parameter)
            self.through_door("set_trial_param", write)
        else:
            self._parameters.append(parameter)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's, without an object for every row: thousands of trials in half a second."""

        def read() -> list[FrozenTrial]:
            with self.engine.connect() as connection:
                return read_trials(
                    connection, study_id, states, included_trial_ids, trial_id_greater_than
                )

        return self.through_door("_get_trials", read)


def _patient(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Tables, *args: Any, **kwargs: Any) -> Any:
        return self.through_door(name, lambda: method(self, *args, **kwargs))

    return call


for _name, _method in inspect.getmembers(RDBStorage, inspect.isfunction):
    static = isinstance(inspect.getattr_static(RDBStorage, _name), staticmethod)
    if not _name.startswith("__") and not static and _name not in vars(Tables):
        setattr(Tables, _name, _patient(_name, _method))


def of_another_optuna(error: RuntimeError, address: str) -> str:
    """What to do where Optuna refuses its own tables, from what it says."""
    made = re.search(r"set up by optuna ([^)]*)", str(error))
    by = f"set up by Optuna {made[1]}" if made else "of another Optuna"
    if "storage upgrade" in str(error):
        return (
            f"its tables are older ({by}) than the installed Optuna {optuna.__version__} reads. "
            f"Make a backup and upgrade them with `optuna storage upgrade --storage {address}` "
            f"(put in the password if there is one), or install the Optuna that made them."
        )
    return (
        f"its tables ({by}) are of a revision that the installed Optuna {optuna.__version__} does "
        f"not know: a newer Optuna's, or another program's. Update Optuna (`pip install -U "
        f"optuna`; then, where it asks for it, `optuna storage upgrade --storage {address}`), or "
        f"choose another database."
    )
