"""What a study evaluates: written once, and compared whenever the study is opened again."""

import json
from collections.abc import Mapping
from typing import Any

import optuna

from mmq.analysis.fronts import SizeAxis
from mmq.errors import InputError
from mmq_search.space import Space

ANOTHER = "Choose another --study, or leave it empty."


def check_eval_spec(
    study: optuna.Study, identity: Mapping[str, Any], space: Space, axis: SizeAxis
) -> None:
    """Write eval spec, space and size axis into a new study; InputError where one has others."""
    attrs, name = study.user_attrs, study.study_name
    known = attrs.get("eval_spec")
    given = json.loads(json.dumps(identity, default=str))  # as the database gives it back
    own = {"bits": list(space.bits), "grain": space.grain}
    if known is None:  # the eval spec last: whoever reads it finds all
        for key, value in (own | {"size_axis": axis, "eval_spec": given}).items():
            study.set_user_attr(key, value)
        return
    if known != given:
        known = known if isinstance(known, dict) else {}
        differs = ", ".join(key for key in given if known.get(key) != given[key])
        raise InputError(
            f"study: {name!r} evaluates something else; what differs: {differs}. {ANOTHER}"
        )
    for key, value in own.items():
        if attrs.get(key) != value:
            raise InputError(
                f"study: {name!r} searches another space, with {key} {attrs.get(key)}. {ANOTHER}"
            )
    measured = attrs.get("size_axis") or "nominal"  # of studies from before there was a choice
    if measured != axis:
        raise InputError(
            f"study: {name!r} measures {measured} sizes; {axis} ones cannot be mixed in. Resume "
            f"it with --study {name} --size-axis {measured}, or choose another --study: evaluated "
            f"trials are reused there."
        )
