"""The contract of every model family, tested on a small checkpoint."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmq.contracts import AnswerFormat, GenerationConfig, Request
from mmq.data.calibration import Calibration
from mmq.data.source import find_source
from mmq.models.loading import LoadedModel, load_model, locate, read_config
from mmq.models.skeleton import family_of, skeleton
from mmq.models.stages import StageCache

PICTURES = 4
PROMPTS = ("what color is it?", "how many?", "is there a red star?", "where is the circle?")


def _silent(items: Iterable[Any], description: str) -> Iterable[Any]:
    return items


@functools.cache
def _model(checkpoint: str) -> LoadedModel:
    return load_model(checkpoint)


def _images() -> list[Any]:
    samples = find_source("retrieval", "scenes", "").samples()
    return [sample.image for sample in samples[:PICTURES]]


class FamilyContract(ABC):
    """Subclass it and implement `checkpoint`: a bundled name, or a folder from your test."""

    @abstractmethod
    def checkpoint(self) -> str:
        """A small model of the family, with its processor."""

    def model(self) -> LoadedModel:
        """The checkpoint, loaded once per test run."""
        return _model(self.checkpoint())

    def test_the_checkpoint_is_this_familys_and_has_a_version(self) -> None:
        model = self.model()
        assert type(model.family).version >= 1
        source = locate(self.checkpoint())
        assert type(family_of(read_config(source))) is type(model.family)

    def test_the_skeleton_has_the_loaded_models_layers(self) -> None:
        planned, model = skeleton(locate(self.checkpoint())), self.model()
        assert list(planned.components) == list(model.components)
        for name, component in planned.components.items():
            loaded = model.components[name]
            assert component.blocks == loaded.blocks > 0
            assert [(layer.name, layer.shape) for layer in component.layers] == [
                (layer.name, layer.shape) for layer in loaded.layers
            ]

    def test_the_processor_is_loaded_without_the_weights(self) -> None:
        model = self.model()
        processor = model.family.load_processor(locate(self.checkpoint()))
        assert type(processor) is type(model.processor)

    def test_every_format_renders_the_prompt_and_generates_text(self) -> None:
        model, images = self.model(), _images()
        for answer_format in model.family.formats:
            protocol = model.protocol(answer_format)
            request = Request((images[0],), protocol.prompt("how many?"), "1")
            assert protocol.prompt("how many?") in model.render(request)
            (text,) = model.generate([request], GenerationConfig(max_new_tokens=3), _silent)
            assert request.prompt == "" or request.prompt not in text

    def _requests(self) -> list[Request]:
        if AnswerFormat.SHORT_ANSWER not in self.model().family.formats:
            pytest.skip("this family has no short answers")
        protocol = self.model().protocol(AnswerFormat.SHORT_ANSWER)
        pairs = zip(_images(), PROMPTS, strict=True)
        return [
            Request((image,), protocol.prompt(question * (1 + k)), str(k))
            for k, (image, question) in enumerate(pairs)
        ]

    def test_outputs_do_not_depend_on_the_batch(self) -> None:
        model, requests = self.model(), self._requests()
        config = GenerationConfig(max_new_tokens=5, min_new_tokens=3)
        together = model.generate(requests, config, _silent)
        alone = [model.generate([request], config, _silent)[0] for request in requests]
        assert together == alone

    def test_outputs_are_the_same_from_cached_stages(self, tmp_path: Path) -> None:
        model, requests = self.model(), self._requests()
        config = GenerationConfig(max_new_tokens=5, batch_size=2)
        plain = model.generate(requests, config, _silent)
        model.stage_cache = StageCache(tmp_path, 10**9)
        try:
            cached = [model.generate(requests, config, _silent) for _ in range(2)]
        finally:
            model.stage_cache = None
        assert cached == [plain, plain]

    def test_calibration_forwards_reach_every_layer(self) -> None:
        model = self.model()
        layers = [layer for part in model.components.values() for layer in part.layers]
        reached: set[str] = set()
        handles = [
            layer.module.register_forward_pre_hook(
                lambda module, inputs, name=layer.name: reached.add(name)
            )
            for layer in layers
        ]
        pairs = tuple((Request((image,), "what is it?", "1"), "a star") for image in _images()[:2])
        try:
            with torch.no_grad():
                for forward in Calibration(pairs).forwards(model):
                    forward()
        finally:
            for handle in handles:
                handle.remove()
        assert reached == {layer.name for layer in layers}

    def test_written_weights_are_restored(self) -> None:
        model = self.model()
        name, component = next(iter(model.components.items()))
        layer = component.layers[0]
        before = layer.weight.clone()
        model.write_(name, {layer.name: torch.zeros_like(before)})
        assert not layer.weight.any()
        model.restore_()
        assert torch.equal(layer.weight, before)

    def test_it_matches_or_generates(self) -> None:
        family = self.model().family
        assert family.matches or family.formats
