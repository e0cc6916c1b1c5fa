"""One trial in an MLflow run of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.prepare import prepare
from mmq.record import TrialDetails, TrialRecord
from mmq.studies.options import BaselineOptions
from mmq.studies.session import opened

Allocate = Callable[[Sequence[str]], BitAllocation]  # from the model's components


@dataclass(frozen=True, slots=True)
class SingleTrial:
    """A logged trial: its record, its details, and its page in MLflow."""

    record: TrialRecord
    details: TrialDetails
    url: str


def unquantized(components: Sequence[str]) -> BitAllocation:
    """Every component at 16 bits."""
    return BitAllocation.uniform(components, UNQUANTIZED)


def run_single(
    options: BaselineOptions, plugin_options: Mapping[str, Any], allocate: Allocate
) -> SingleTrial:
    """Check everything, load the model, run the trial and log it."""
    from mmq.tracking import single_run

    prepared = prepare(options, plugin_options, lambda components: [allocate(components)])
    with opened([prepared], options.experiment) as (session,):
        spec = session.spec(allocate(list(session.model.components)))
        with single_run(options.experiment, spec) as run:
            result = session.run(spec)
            record = run.finish(result)
    return SingleTrial(record, result.details, run.run_link())
