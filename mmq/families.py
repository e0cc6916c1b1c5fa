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
    decoder: ClassVar[str] = ""  # path of the part whose `generate` continues; "": the model

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
        """The generated continuations, cut by token position.

        Image and prompt are read once a sample, not once a beam: transformers would expand the
        beams first. The keys and values of all but the last token are computed, then repeated, and
        generation goes on from there with the same tokens as without (a test compares).
        """
        import torch

        module: Any = model.module
        inputs = model.processor(
            images=list(images), text=list(texts), padding=True, return_tensors="pt"
        ).to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(module.dtype)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with torch.no_grad():
            read = module(
                pixel_values=inputs["pixel_values"],
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                use_cache=True,
            )
        cache = getattr(read, "language_model_outputs", read).past_key_values
        cache.batch_repeat_interleave(settings.num_beams)
        tokens = module.get_submodule(self.decoder).generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens or None,
            num_beams=settings.num_beams,
            length_penalty=settings.length_penalty,
            do_sample=False,
        )
        decoded = model.processor.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in decoded]
