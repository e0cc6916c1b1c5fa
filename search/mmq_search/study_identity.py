"""What a study evaluates: written when it is created, and compared whenever it is opened."""

import json
from collections.abc import Mapping
from typing import Any

import optuna

from mmq.errors import InputError
from mmq_search.sampler_setup import SamplerSetup

ANOTHER = "Choose another --study, or leave it empty."


def check_identity(study: optuna.Study, identity: Mapping[str, Any], setup: SamplerSetup) -> None:
    """Write eval spec, space, objective and costs into a new study; InputError if it has others.

    identity: of the eval spec.
    """
    space, axis, costs = setup.space, setup.axis, setup.costs
    attrs, name = study.user_attrs, study.study_name
    stored = attrs.get("eval_spec")
    spec = json.loads(json.dumps(identity, default=str))  # as the database returns it
    own = {
        "bits": list(space.bits),
        "granularity": space.granularity,
        "limits": [[name, list(widths)] for name, widths in space.limits] or None,
        "target": None if costs is None else costs.name,
        "cost": None if costs is None else costs.kind,
        "objective": None if setup.objective == "score" else setup.objective,
    }
    if stored is None:  # the eval spec last: a study that has it has everything
        times = None if costs is None else costs.to_json()
        for key, value in (own | {"times": times, "size_axis": axis, "eval_spec": spec}).items():
            study.set_user_attr(key, value)
        return
    if stored != spec:
        stored = stored if isinstance(stored, dict) else {}
        differs = ", ".join(key for key in spec if stored.get(key) != spec[key])
        raise InputError(
            f"study: {name!r} has another eval spec; these differ: {differs}. {ANOTHER}"
        )
    for key, value in own.items():
        if attrs.get(key) != value:
            what = "has another objective" if key == "objective" else "searches another space"
            raise InputError(
                f"study: {name!r} {what}, with {key} {attrs.get(key) or 'unset'}. {ANOTHER}"
            )
    measured = attrs.get("size_axis") or "nominal"  # of studies that are older than the option
    if measured != axis:
        raise InputError(
            f"study: {name!r} compares {measured} sizes, not {axis} ones. Resume it with --study "
            f"{name} --size-axis {measured}, or choose another --study, which reuses "
            f"completed trials."
        )
