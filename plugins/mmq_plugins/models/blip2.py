"""BLIP-2 generation models: ViT, Q-Former and a language model (OPT)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mmq.contracts import AnswerFormat, AnswerProtocol, ComponentSpec, GenerationConfig, Stage
from mmq.models.transformers_family import TransformersFamily, query_tokens


def _vision(module: Any, pixels: Tensor) -> Tensor:
    """Patch features of the ViT, (n, 1 + patches, width)."""
    features: Tensor = module.vision_model(pixel_values=pixels).last_hidden_state
    return features


def _connector(module: Any, vision: Tensor) -> Tensor:
    """The query outputs as language model inputs, (n, queries, width)."""
    queries = module.qformer(
        query_embeds=query_tokens(module, vision),
        encoder_hidden_states=vision,
    ).last_hidden_state
    projected: Tensor = module.language_projection(queries.to(vision.dtype))
    return projected


# LAVIS's protocol for BLIP-2: beam search without a preference for long answers
SHORT = GenerationConfig(max_new_tokens=10, num_beams=5, min_new_tokens=1, length_penalty=0.0)
FORMATS: Mapping[AnswerFormat, AnswerProtocol] = {
    AnswerFormat.CAPTION: AnswerProtocol("", GenerationConfig(max_new_tokens=30, num_beams=5)),
    AnswerFormat.SHORT_ANSWER: AnswerProtocol("Question: {} Short answer:", SHORT),
    AnswerFormat.CHOICE: AnswerProtocol("Question: {} Short answer:", SHORT),
    AnswerFormat.FREE: AnswerProtocol(
        "Question: {} Answer:", GenerationConfig(max_new_tokens=100, num_beams=5)
    ),
}


class Blip2(TransformersFamily):
    """`Blip2ForConditionalGeneration`, e.g. Salesforce/blip2-opt-2.7b."""

    version: ClassVar[int] = 2
    model_class: ClassVar[str] = "Blip2ForConditionalGeneration"
    processor_class: ClassVar[str] = "Blip2Processor"
    decoder: ClassVar[str] = "language_model"
    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForConditionalGeneration", "blip-2")
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", ("vision_model.encoder.layers",)),
        ComponentSpec("qformer", ("qformer.encoder.layer",)),
        ComponentSpec("llm", ("language_model.model.decoder.layers",)),
    )
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("vision", ("vit",), _vision),
        Stage("connector", ("qformer",), _connector),
    )
    formats: Mapping[AnswerFormat, AnswerProtocol] = FORMATS

    def unsupported(self, config: Any) -> str:
        """Why a language model is not OPT; "" if it is."""
        kind = config.text_config.model_type
        return "" if kind == "opt" else f"its language model is a {kind}, not OPT"
