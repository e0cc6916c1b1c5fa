"""Outputs of an unquantized model that another machine, or an earlier version, evaluated."""

import logging

from mmq.errors import InputError
from mmq.eval_spec import EvalSpec, JointSpec
from mmq.evaluation.flips import UnquantizedAnswers

log = logging.getLogger(__name__)


def fetch_outputs(spec: EvalSpec, run_id: str | None) -> None:
    """Save the unquantized model's outputs from its run, unless they are on this machine.

    Without them trials have no flips, which is only a warning.
    """
    from mmq.tracking.predictions import fetch_answers

    saved = UnquantizedAnswers(spec)
    if isinstance(spec, JointSpec) or not run_id or saved.path.exists():
        return
    try:
        answers = fetch_answers(run_id).answers
    except InputError as error:
        log.warning("Trials have no flips: %s", error)
        return
    saved.put({sample_id: answer.answer for sample_id, answer in answers.items()})
