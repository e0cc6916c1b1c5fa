"""A model without weights: its components, shapes and sizes from the configuration."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmq.contracts import registry
from mmq.contracts.family import ModelFamily, architecture_of
from mmq.errors import InputError
from mmq.models.checkpoint import fingerprint as fingerprint
from mmq.models.checkpoint import locate as locate
from mmq.models.checkpoint import read_config as read_config
from mmq.models.checkpoint import read_protocol as read_protocol
from mmq.models.checkpoint_errors import reading
from mmq.models.components import Component, Layer, count_parameters, find_components
from mmq.models.loaded import LoadedModel as LoadedModel
from mmq.models.optional_parts import with_parts
from mmq.models.transformers_loading import check_outline, quietly
from mmq.models.transformers_loading import load_weights as load_weights
from mmq.models.unquantized import UnquantizedModule, unquantized_modules, unread_blocks

log = logging.getLogger(__name__)
MOST_PARAMETERS = 10**13
ENOUGH = 0.9  # reach below which the modules at 16 bits are reported
LISTED = 0.01  # share of all weights from which a module is named


def family_of(config: Any) -> ModelFamily:
    """The installed family for a configuration, fallbacks last; InputError if there is none."""
    families: list[ModelFamily] = []
    unusable: list[str] = []
    for plugin in registry.installed("model family"):
        try:
            families.append(registry.load_class("model family", plugin.name, ModelFamily)())
        except InputError as error:  # a broken plugin must not stop the others
            unusable.append(str(error))
    for family in sorted(families, key=lambda family: family.is_fallback):
        if family.supports(config):
            if reason := family.unsupported(config):
                _report_fallback(type(family).__name__, reason)
                continue
            return family.for_model(config)
    names = {name for family in families for name in family.architectures if name[0].isupper()}
    raise InputError(
        " ".join(
            [
                f"No model family for {architecture_of(config)}.",
                f"Supported architectures: {', '.join(sorted(names))}, and those with shares in "
                f"the table of mmq models --check.",
                *unusable,
            ]
        )
    )


@cache
def _report_fallback(family: str, reason: str) -> None:
    """Log once why a model is left to a fallback family."""
    log.info("The %s family leaves this model to a general one: %s", family, reason)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without weights: enough to know its components, shapes and size."""

    family: ModelFamily
    components: dict[str, Component]
    parameters: int
    unquantized: tuple[UnquantizedModule, ...]  # what stays at 16 bits
    unread_blocks: int  # last blocks of the vision tower whose output nothing reads

    @property
    def reach(self) -> float:
        """Share of the parameters that are in a component: what an allocation can quantize."""
        weights = sum(component.weights for component in self.components.values())
        return weights / self.parameters

    def layer(self, name: str) -> Layer:
        """A layer by its name."""
        return next(x for c in self.components.values() for x in c.layers if x.name == name)

    @property
    def left_out(self) -> str:
        """One sentence on what stays at 16 bits; "" if that is little.

        It is much below a reach of 90%, or if the vision tower has no blocks to quantize.
        """
        if self.reach >= ENOUGH and "vit" in self.components:
            return ""
        largest = [m for m in self.unquantized if m.weights >= LISTED * self.parameters]
        names = ", ".join(f"{m.name} ({m.weights / self.parameters:.1%})" for m in largest)
        return (
            f"{self.reach:.1%} of the weights can be quantized. Left at 16 bits: "
            f"{names or 'small modules'}; see mmq size, and --parts for embeddings and heads."
        )


def skeleton(source: str, parts: Iterable[str] = ()) -> Skeleton:
    """Components and number of parameters, from a configuration alone in under a second.

    parts: optional ones, such as embed.
    """
    config = read_config(source)
    family = family_of(config)
    module = on_meta(source, family, config)
    components = with_parts(module, find_components(module, family), parts)
    parameters = count_parameters(module)
    if parameters > MOST_PARAMETERS:
        raise InputError(f"Model {source!r}: its configuration has {parameters:,} parameters")
    return Skeleton(
        family=family,
        components=components,
        parameters=parameters,
        unquantized=unquantized_modules(module, components),
        unread_blocks=unread_blocks(config),
    )


def on_meta(source: str, family: ModelFamily, config: Any) -> nn.Module:
    """The model without weights; InputError for an inconsistent configuration."""
    with (
        reading(f"Model {source!r}: no model can be built from its configuration"),
        quietly(),  # initializing on the meta device logs a lot
        torch.device("meta"),
    ):
        return family.skeleton(config)


def check_weights(source: str, allow_unread: bool = False) -> None:
    """InputError for a folder whose weights do not match its configuration, before loading.

    Hub models are checked on loading: their weights are not downloaded yet.
    """
    if Path(source).is_dir():
        config = read_config(source)
        module = on_meta(source, family_of(config), config)
        with reading(f"Model {source!r}: its weights cannot be loaded"):
            check_outline(Path(source), module, allow_unread)
