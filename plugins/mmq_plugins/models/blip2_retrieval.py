"""BLIP-2 image-text retrieval models: ViT and a Q-Former that also reads text."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mmq.contracts import AnswerFormat, AnswerProtocol, ComponentSpec, Stage
from mmq.models.loading import LoadedModel
from mmq.models.stages import run_stages
from mmq.models.transformers_family import TransformersFamily, query_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPERATURE = 0.07  # contrastive temperature with which BLIP-2's training starts


def _vision(module: Any, pixels: Tensor) -> Tensor:
    """Patch features of the ViT, (n, 1 + patches, width)."""
    features: Tensor = module.vision_model(pixel_values=pixels).last_hidden_state
    return features


def _connector(module: Any, vision: Tensor) -> Tensor:
    """One unit vector per query token, (n, queries, shared width)."""
    queries = module.qformer(
        query_embeds=query_tokens(module, vision),
        encoder_hidden_states=vision,
    ).last_hidden_state
    projection = module.vision_projection
    return F.normalize(projection(queries.to(projection.weight.dtype)), dim=-1)


class Blip2Retrieval(TransformersFamily):
    """`Blip2ForImageTextRetrieval`, e.g. Salesforce/blip2-itm-vit-g-coco.

    It embeds pictures and texts for contrast, and its matching head reads both together. The
    submodules are called instead of the model: its forward recomputes the image side for every
    text, and strips image tokens from texts that have none.
    """

    version: ClassVar[int] = 2
    model_class: ClassVar[str] = "Blip2ForImageTextRetrieval"
    processor_class: ClassVar[str] = "Blip2Processor"
    never_offloaded: ClassVar[tuple[str, ...]] = ("embeddings",)
    # left padding would change a text's embedding; 35 tokens as in BLIP-2's retrieval evaluation
    # (Li et al. 2023)
    formats: Mapping[AnswerFormat, AnswerProtocol] = {}  # no language model
    matches: ClassVar[bool] = True
    tokenization: Mapping[str, Any] = {"padding_side": "right", "max_tokens": 35}
    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForImageTextRetrieval",)
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", ("vision_model.encoder.layers",)),
        ComponentSpec("qformer", ("qformer.encoder.layer",)),
    )
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("vision", ("vit",), _vision),
        Stage("connector", ("qformer",), _connector),
    )

    def _texts(self, model: LoadedModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        limit = self.tokenization["max_tokens"]
        tokens = model.processor.tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        return tokens["input_ids"], tokens["attention_mask"]

    def calibration_forwards(
        self,
        model: LoadedModel,
        images: Sequence[Sequence["Image"]],
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """Pictures and texts for contrast, then both together for the matching head."""
        flat = [image for of_text in images for image in of_text]
        vision: list[Tensor] = []
        queries: list[Tensor] = []

        def images_only() -> None:
            vision[:] = [run_stages(model, self.stages[:1], self.pixels(model, flat))]
            queries[:] = [run_stages(model, self.stages[1:], vision[0])]

        def contrast() -> Tensor | None:
            vectors = self.embed_texts(model, texts)
            if not queries:  # the previous forward was aborted
                return None
            similarity = torch.einsum("iqd,td->itq", queries[0], vectors).amax(-1).float()
            logits = torch.cat([similarity, similarity.T]) / TEMPERATURE
            return logits.log_softmax(-1)

        def matching() -> Tensor | None:
            if not vision:
                return None
            logits = self.match(model, vision[0], texts).float()
            return F.logsigmoid(torch.stack([logits, -logits], -1))

        return [images_only, contrast, matching]

    @torch.no_grad()
    def embed_texts(self, model: LoadedModel, texts: Sequence[str]) -> Tensor:
        """One unit vector per text, (n, shared width)."""
        return self.text_vectors(model.module, *self._texts(model, texts))

    def text_vectors(self, module: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """One unit vector per tokenized text, (n, shared width)."""
        states = module.qformer(
            query_embeds=module.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        ).last_hidden_state
        projection = module.text_projection
        return F.normalize(projection(states[:, 0].to(projection.weight.dtype)), dim=-1)

    @torch.no_grad()
    def match(self, model: LoadedModel, vision: Tensor, texts: Sequence[str]) -> Tensor:
        """The matching head's logit that picture and text match, (n,).

        vision: the first stage's outputs, one row per text.
        """
        return self.matching_logits(model.module, vision, *self._texts(model, texts))

    def matching_logits(self, module: Any, vision: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The logit that picture and tokenized text match, (n,)."""
        queries = query_tokens(module, vision)
        count = queries.shape[1]
        states = module.qformer(
            query_embeds=module.embeddings(input_ids=ids, query_embeds=queries),
            query_length=count,
            attention_mask=F.pad(mask, (count, 0), value=1),
            encoder_hidden_states=vision,
        ).last_hidden_state
        states = states[:, :count].to(module.itm_head.weight.dtype)
        logits: Tensor = module.itm_head(states).mean(1)[:, 1]
        return logits
