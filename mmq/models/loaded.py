"""A loaded model: its weights are changed in place and can be put back."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmq.contracts.family import ModelFamily
from mmq.system.disk import naming, write_all
from mmq.system.home import home

if TYPE_CHECKING:
    from mmq.evaluation.saved_answers import SavedAnswers
    from mmq.models.components import Component, Layer
    from mmq.models.stages import StageCache

ORIGINAL = "original"  # the state of a component whose weights are those of the checkpoint


class Originals:
    """Weights as they were loaded, in an unnamed file: a copy in memory would double the model.

    The file vanishes with the process, however that ends.
    """

    def __init__(self) -> None:
        self._folder = home()
        self._folder.mkdir(parents=True, exist_ok=True)
        # unbuffered: what a full disk refuses is refused here, not when the file is closed
        self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        self._places: dict[str, tuple[int, torch.Size, torch.dtype]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def keep(self, name: str, weight: Tensor) -> None:
        """Write a weight behind those that are there; an OSError names the folder."""
        data = weight.detach().cpu().contiguous()
        start = self._file.seek(0, os.SEEK_END)
        try:
            with naming(self._folder, data.nbytes):
                write_all(self._file, data.reshape(-1).view(torch.uint8).numpy().data)
        except OSError:
            self._file.truncate(start)  # half a weight is of no use to anybody
            raise
        self._places[name] = (start, data.shape, data.dtype)

    def __getitem__(self, name: str) -> Tensor:
        start, shape, dtype = self._places[name]
        data = torch.empty(shape, dtype=dtype)
        self._file.seek(start)
        rest = memoryview(data.reshape(-1).view(torch.uint8).numpy().data)
        while rest:
            if not (count := self._file.readinto(rest)):
                raise OSError(
                    f"the weights of {name} as loaded are not in {self._folder} any more"
                )
            rest = rest[count:]
        return data


@dataclass(slots=True)
class LoadedModel:
    """A model ready to be quantized and asked; weights are changed in place and restorable.

    `states` tells what each component's weights are: ORIGINAL, or the name of what was written.
    A component that is not in it has weights of unknown origin.
    """

    module: nn.Module
    processor: Any
    family: ModelFamily
    source: str
    fingerprint: str
    device: str
    components: "dict[str, Component]"
    stage_cache: "StageCache | None" = None
    saved_answers: "SavedAnswers | None" = None  # those of the trial that runs
    states: dict[str, str] = field(init=False)
    _originals: Originals | None = None

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(self.components, ORIGINAL)

    @torch.no_grad()
    def write_(self, component: str, weights: Mapping[str, Tensor]) -> None:
        """Put weights (by layer name) into a component's layers; the originals are kept.

        The component's state is unknown then, until `states` is told.
        """
        self._originals = self._originals or Originals()
        self.states.pop(component, None)
        for layer in self.components[component].layers:
            if layer.name in weights:
                if layer.name not in self._originals:
                    self._originals.keep(layer.name, layer.module.weight)
                layer.module.weight.copy_(weights[layer.name])

    def original(self, layer: "Layer") -> Tensor:
        """A layer's weight (out, in) as loaded, on the model's device."""
        if self._originals is not None and layer.name in self._originals:
            return self._originals[layer.name].to(self.device)
        return layer.module.weight.detach()

    @torch.no_grad()
    def restore_(self) -> None:
        """Put the loaded weights back into every component that was written."""
        if self._originals is None:
            return
        for name, component in self.components.items():
            if self.states.get(name) == ORIGINAL:
                continue
            for layer in component.layers:
                if layer.name in self._originals:
                    layer.module.weight.copy_(self._originals[layer.name])
            self.states[name] = ORIGINAL
