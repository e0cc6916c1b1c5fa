"""One trial in an MLflow run of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.record import TrialDetails, TrialRecord
from mmq.studies.joint_session import JointSession
from mmq.studies.joint_tasks import prepare_tasks
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
    """Check everything, load the model, run the trial and log it.

    Shares of several tasks need the unquantized scores: they are evaluated first, unless they are
    recorded.
    """
    from mmq.tracking import single_run

    prepared = prepare_tasks(
        options,
        plugin_options,
        options.combine,
        lambda components: [allocate(components)],
    )
    with opened([prepared], options.experiment) as (session,):
        components = list(session.model.components)
        spec = session.spec(allocate(components))
        if isinstance(session, JointSession) and not session.has_unquantized(spec):
            reference = session.spec(unquantized(components))
            with single_run(options.experiment, reference) as run:
                session.log_single(run, reference)
        with single_run(options.experiment, spec) as run:
            if isinstance(session, JointSession):
                record, details = session.log_single(run, spec), TrialDetails((), ())
            else:
                result = session.run(spec)
                record, details = run.finish(result), result.details
    return SingleTrial(record, details, run.run_link())
