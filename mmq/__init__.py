"""mmq finds where the bits of a vision-language model belong.

    import mmq

    study = mmq.search(model="embedded-llava", task="vqa", limit=50, n_trials=10)
    print(study)

Importing mmq is quick: everything below is imported when it is first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmq.allocation.allocation import BitAllocation as BitAllocation
    from mmq.analysis.selection import Selection as Selection
    from mmq.api import ablate as ablate
    from mmq.api import analyze as analyze
    from mmq.api import compare as compare
    from mmq.api import compare_answers as compare_answers
    from mmq.api import curves as curves
    from mmq.api import evaluate as evaluate
    from mmq.api import grid as grid
    from mmq.api import load_study as load_study
    from mmq.api import measure as measure
    from mmq.api import search as search
    from mmq.api import sweep as sweep
    from mmq.errors import InputError as InputError
    from mmq.eval_spec import EvalSpec as EvalSpec
    from mmq.record import TrialRecord as TrialRecord
    from mmq.studies.study import Study as Study

try:
    __version__ = version("mmq")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_PLACES = {
    "BitAllocation": "mmq.allocation.allocation",
    "EvalSpec": "mmq.eval_spec",
    "InputError": "mmq.errors",
    "Selection": "mmq.analysis.selection",
    "Study": "mmq.studies.study",
    "TrialRecord": "mmq.record",
    "ablate": "mmq.api",
    "analyze": "mmq.api",
    "compare": "mmq.api",
    "compare_answers": "mmq.api",
    "curves": "mmq.api",
    "evaluate": "mmq.api",
    "grid": "mmq.api",
    "load_study": "mmq.api",
    "measure": "mmq.api",
    "search": "mmq.api",
    "sweep": "mmq.api",
}
__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mmq' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
