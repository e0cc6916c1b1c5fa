"""Load a model with its components."""

import logging
from collections.abc import Iterable
from typing import Any

from mmq.contracts.family import ModelFamily
from mmq.contracts.vlm import DEFAULT_INPUTS, InputOptions
from mmq.errors import InputError
from mmq.models.checkpoint import fingerprint as fingerprint
from mmq.models.checkpoint import locate as locate
from mmq.models.checkpoint import read_config as read_config
from mmq.models.checkpoint import read_protocol as read_protocol
from mmq.models.checkpoint_errors import reading
from mmq.models.components import count_parameters, find_components
from mmq.models.loaded import LoadedModel as LoadedModel
from mmq.models.optional_parts import with_parts
from mmq.models.pixel_limits import limit_pixels_
from mmq.models.placement import rebind, share_tied_
from mmq.models.skeleton import check_weights, family_of, on_meta
from mmq.models.spread import Spread
from mmq.models.transformers_loading import load_weights as load_weights
from mmq.system.device import DTYPES

log = logging.getLogger(__name__)


def load_model(
    name: str,
    dtype: str = "float32",
    device: str = "cpu",
    known_fingerprint: str | None = None,
    allow_pickle: bool = False,
    allow_unread: bool = False,
    processor: Any = None,
    inputs: InputOptions = DEFAULT_INPUTS,
    parts: Iterable[str] = (),
) -> LoadedModel:
    """A model from a bundled name, a local folder or a hub name, in eval mode.

    known_fingerprint: saves hashing all weights again. allow_unread: accept a checkpoint with
    weights that the model does not read. processor: the checkpoint's, if it is loaded already.
    parts: optional ones to be quantized, such as embed.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {sorted(DTYPES)}")
    source = locate(name, allow_pickle)
    config = read_config(source)
    family = family_of(config)
    check_weights(source, allow_unread)
    # families written before this option need not accept it
    options = {"allow_unread": True} if allow_unread else {}
    with reading(f"Model {name!r} cannot be loaded"):
        if processor is None:
            processor = load_processor(family, source, inputs)
        module = family.load(source, DTYPES[dtype], device, allow_pickle, **options)
        family.check_processor(module, processor, source)
    if family.one_by_one:
        log.warning(
            "%s: batches have one sample each, because with this version of transformers %s",
            name, family.one_by_one,
        )  # fmt: skip
    module.eval().requires_grad_(False)
    outline = on_meta(source, family, config) if isinstance(device, Spread) else module
    components = with_parts(outline, find_components(outline, family), parts)
    if outline is not module:
        share_tied_(outline, module)
    return LoadedModel(
        module=module,
        processor=processor,
        family=family,
        source=name,
        fingerprint=known_fingerprint or fingerprint(source, config, dtype),
        device=device,
        components=components if outline is module else rebind(components, outline, module),
        parameters=count_parameters(outline),
        inputs=inputs,
    )


def load_processor(family: ModelFamily, source: str, inputs: InputOptions) -> Any:
    """A checkpoint's processor, with the user's limits of pixels."""
    processor = family.load_processor(source)
    limit_pixels_(processor, inputs)
    return processor
