"""The pruner of a search's next trial: finished trials that do not cost more."""

from dataclasses import replace

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import baseline
from mmq.evaluation.flips import UnquantizedAnswers
from mmq.prepare import Prepared
from mmq.studies.joint_pruning import JointPruner
from mmq.studies.joint_tasks import JointPrepared
from mmq.studies.pruning import Pruner
from mmq_search.study import SearchStudy


def pruner_of(study: SearchStudy, prepared: Prepared, allocation: BitAllocation) -> Pruner | None:
    """The pruner of an allocation's trial.

    None for a rule of thumb, which is evaluated on all samples: the result is compared with it.
    """
    if str(allocation) in study.rules:
        return None
    points = study.points()
    reference = baseline(points)
    if (cost := study.setup.cost(allocation)) is not None:
        points = [p for p in points if p.cost is not None and p.cost.value <= cost.value]
    seed = prepared.eval_spec.seed
    if not isinstance(prepared, JointPrepared):
        pruner = Pruner(seed, points, study.per_sample)
        if study.objective == "score":
            return pruner
        return replace(pruner, answers=UnquantizedAnswers(prepared.eval_spec).get())
    unquantized = None if reference is None else study.record(reference.allocation)
    return JointPruner(
        seed,
        points,
        study.per_sample,
        study.task_samples,
        unquantized,
        prepared.highest,
        prepared.combine,
    )
