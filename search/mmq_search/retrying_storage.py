"""Optuna's storage in a database that may be unavailable for a while."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from mmq.errors import InputError
from mmq.system.retries import Retries
from mmq.system.signals import signals_deferred
from mmq_search.optuna_internals import BatchStorage, wrap_methods

T = TypeVar("T")
DELETED = "the study is no longer in the database: it was deleted"
UNREADABLE = "its rows for this study are damaged, or another program wrote them"
WRITES = ("set_", "create_", "delete_", "write_")  # how names of writing methods begin


class RetryingStorage(BatchStorage):
    """Optuna's storage; every method waits while the database is unavailable."""

    def __init__(self, retries: Retries, *args: Any, **kwargs: Any) -> None:
        self.retries = retries
        super().__init__(*args, **kwargs)

    def guarded(self, name: str, call: Callable[[], T]) -> T:
        """The result of `call`, a method of this name; StorageError for missing or bad rows."""

        def whole() -> T:
            with signals_deferred():
                return call()

        try:
            return self.retries.retry(whole)
        except InputError:
            raise
        except KeyError:
            if name == "get_study_id_from_name":  # how Optuna finds out whether a study exists
                raise
            raise self.retries.explain(DELETED) from None
        except (ValueError, LookupError, TypeError) as error:
            if "get" not in name:
                raise
            raise self.retries.explain(f"{UNREADABLE}: {error}") from None
        finally:
            if name.lstrip("_").startswith(WRITES):  # at the end: reads within it saw less
                self.changes += 1

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's, but written once even if the reply to the first attempt was lost."""
        attempts = 0

        def write() -> bool:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and state.is_finished():
                now = RDBStorage.get_trial(self, trial_id)
                if now.state == state and now.values == (None if values is None else [*values]):
                    return True
            return bool(RDBStorage.set_trial_state_values(self, trial_id, state, values))

        return self.guarded("set_trial_state_values", write)


def _guard(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self.guarded(name, lambda: method(self, *args, **kwargs))

    return call


wrap_methods(RetryingStorage, _guard)


def explain_version(error: RuntimeError, address: str) -> str:
    """What to do if Optuna refuses the database's tables. error: Optuna's own."""
    match = re.search(r"set up by optuna ([^)]*)", str(error))
    by = f"set up by Optuna {match[1]}" if match else "of another Optuna version"
    if "storage upgrade" in str(error):
        return (
            f"its tables are older ({by}) than the installed Optuna {optuna.__version__} reads. "
            f"Make a backup and upgrade them with `optuna storage upgrade --storage {address}` "
            f"(add the password if there is one), or install the Optuna version that made them."
        )
    return (
        f"its tables ({by}) have a revision that the installed Optuna {optuna.__version__} does "
        f"not know: a newer Optuna or another program made them. Update Optuna (`pip install -U "
        f"optuna`, then, if it asks for it, `optuna storage upgrade --storage {address}`), or "
        f"choose another database."
    )
