"""The base of model families that transformers loads and asks by itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts import Generation, ModelFamily
from mmq.model import load_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from mmq.model import LoadedModel


class TransformersFamily(ModelFamily):
    """A family with a model class and a processor class of transformers, asked by `generate`."""

    model_class: ClassVar[str]
    processor_class: ClassVar[str]

    def skeleton(self, config: Any) -> "nn.Module":
        """The model without weights."""
        import transformers

        model: nn.Module = getattr(transformers, self.model_class)(config)
        return model

    def load(self, source: str, dtype: Any, device: str) -> tuple["nn.Module", Any]:
        """Model and processor; safetensors only, no remote code."""
        import transformers

        model = load_weights(getattr(transformers, self.model_class), source, dtype, device)
        processor = getattr(transformers, self.processor_class).from_pretrained(source)
        processor.tokenizer.padding_side = "left"
        return model, processor

    def generate(
        self,
        model: "LoadedModel",
        images: "Sequence[Image]",
        texts: Sequence[str],
        settings: Generation,
    ) -> list[str]:
        """The generated continuations, cut by token position."""
        module: Any = model.module  # generate is not part of nn.Module
        inputs = model.processor(
            images=list(images), text=list(texts), padding=True, return_tensors="pt"
        ).to(model.device)
        inputs.pop("token_type_ids", None)  # some tokenizers emit them; generate refuses them
        inputs["pixel_values"] = inputs["pixel_values"].to(module.dtype)
        tokens = module.generate(
            **inputs,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens or None,
            num_beams=settings.num_beams,
            length_penalty=settings.length_penalty,
            do_sample=False,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = model.processor.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]
