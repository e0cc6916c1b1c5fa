"""Where each layer of an allocation is in the store."""

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import ArtifactKey
from mmq.models.components import Layer
from mmq.models.loading import LoadedModel
from mmq.system.hashing import digest

LayerKeys = dict[str, tuple[str, Layer, ArtifactKey | None]]


def keys_by_layer(
    artifacts: Artifacts, model: LoadedModel, allocation: BitAllocation
) -> LayerKeys:
    """Component, layer and artifact of every layer, by its name; no key: it stays as it is.

    model: unquantized; its weights are not read. The artifacts need not be stored.
    """
    widths = allocation.widths(model.components)
    states = dict(model.states)
    by_layer: LayerKeys = {}
    try:
        for name, component in model.components.items():
            bits_of = {layer.name: widths[component.part(layer)] for layer in component.layers}
            keys = artifacts.keys(model, component, set(bits_of.values()))
            written = []
            for layer in component.layers:
                bits = bits_of[layer.name]
                key = None if bits == UNQUANTIZED else keys[layer.block, bits]
                by_layer[layer.name] = name, layer, key
                written += [] if key is None else [[layer.name, key.name]]
            if written:  # the codes of the components after it may depend on it
                model.states[name] = digest(written)
    finally:
        model.states.update(states)
    return by_layer
