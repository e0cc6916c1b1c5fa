"""Any other vision-language model of transformers, split by the paths of its blocks."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mmq.contracts import (
    GENERAL_PROTOCOLS,
    AnswerFormat,
    AnswerProtocol,
    ComponentSpec,
    GenerationConfig,
    ModelFamily,
    architecture_of,
)
from mmq.errors import InputError
from mmq.models.loading import load_weights
from mmq.models.transformers_family import answer_choices, check_vocabulary, load_processor
from mmq_plugins.models.splitting import split

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.models.loading import LoadedModel


@contextmanager
def needed_packages(name: str) -> Iterator[None]:
    """InputError if transformers needs a package for this model that is not installed."""
    try:
        yield
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} needs a package that is not installed: {reason}") from error


class Generic(ModelFamily):
    """Every architecture of `AutoModelForImageTextToText` without a family of its own.

    Components: `vit` and `connector` (if they have transformer blocks) and `llm`. Everything else
    stays at 16 bits; `mmq size` lists it.
    """

    version: ClassVar[int] = 2
    is_fallback: ClassVar[bool] = True
    tokenization: ClassVar[Mapping[str, Any]] = {"padding_side": "left"}
    formats: ClassVar[Mapping[AnswerFormat, AnswerProtocol]] = GENERAL_PROTOCOLS
    most_images: ClassVar[int | None] = None

    def supports(self, config: Any) -> bool:
        """Whether transformers has an image-text-to-text model of this architecture."""
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SUPPORTED

        if type(config) not in SUPPORTED:
            return False
        return architecture_of(config) in (SUPPORTED[type(config)].__name__, config.model_type)

    def component_specs(self, root: nn.Module) -> tuple[ComponentSpec, ...]:
        """The model's lists of blocks by component; InputError without a language model."""
        return split(root)

    def skeleton(self, config: Any) -> nn.Module:
        """The model without weights."""
        from transformers import AutoModelForImageTextToText

        with needed_packages(architecture_of(config)):
            model: nn.Module = AutoModelForImageTextToText.from_config(
                config, trust_remote_code=False
            )
        return model

    def load_processor(self, source: str) -> Any:
        """The checkpoint's processor, with left padding; no remote code."""
        from transformers import AutoProcessor

        with needed_packages(source):
            processor = load_processor(AutoProcessor, source)
        processor.tokenizer.padding_side = self.tokenization["padding_side"]
        return processor

    def load(
        self,
        source: str,
        dtype: Any,
        device: str,
        allow_pickle: bool = False,
        allow_unread: bool = False,
    ) -> tuple[nn.Module, Any]:
        """Model and processor; no remote code."""
        from transformers import AutoModelForImageTextToText

        processor = self.load_processor(source)
        with needed_packages(source):
            model = load_weights(
                AutoModelForImageTextToText, source, dtype, device, allow_pickle, allow_unread
            )
        check_vocabulary(model, processor, source)
        return model, processor

    def chat(self, processor: Any, prompt: str, images: int) -> str:
        """A prompt after its pictures, with the processor's chat template if it has one."""
        if getattr(processor, "chat_template", None):
            content = [{"type": "image"}] * images + [{"type": "text", "text": prompt}]
            message = {"role": "user", "content": content}
            rendered: str = processor.apply_chat_template(
                [message], add_generation_prompt=True, tokenize=False
            )
            return rendered
        return f"{getattr(processor, 'image_token', '') * images}{prompt}"

    def _inputs(
        self,
        model: "LoadedModel",
        images: "Sequence[Sequence[Image]]",
        texts: Sequence[str],
        answers: Sequence[str] = (),
    ) -> Any:
        """The processor's inputs for pictures and rendered prompts, followed by answers."""
        module: Any = model.module
        processor = model.processor
        pairs = zip_longest(texts, answers, fillvalue="")
        prompts = [text + answer for text, answer in pairs]
        bos = processor.tokenizer.bos_token
        # a chat template may already contain the first token
        special = {"add_special_tokens": False} if bos and prompts[0].startswith(bos) else {}
        inputs = processor(
            images=[list(of_text) for of_text in images],  # all processors take a list per text
            text=prompts,
            padding=True,
            return_tensors="pt",
            **special,
        ).to(model.device, module.dtype)
        if "token_type_ids" not in inspect.signature(module.forward).parameters:
            inputs.pop("token_type_ids", None)
        return inputs

    def calibration_forwards(
        self,
        model: "LoadedModel",
        images: "Sequence[Sequence[Image]]",
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """One forward of the whole model."""

        def forward() -> Tensor:
            inputs = self._inputs(model, images, texts, answers)
            with torch.no_grad():
                output = model.module(**inputs, use_cache=False)
            prompt_mask = self._inputs(model, images, texts)["attention_mask"]
            return answer_choices(output.logits, inputs["attention_mask"], prompt_mask)

        return [forward]

    @torch.no_grad()
    def generate(
        self,
        model: "LoadedModel",
        images: "Sequence[Sequence[Image]]",
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """The generated continuations, cut by token position."""
        module: Any = model.module
        inputs = self._inputs(model, images, texts)
        tokens = module.generate(
            **inputs,
            max_new_tokens=config.max_new_tokens,
            min_new_tokens=config.min_new_tokens or None,
            num_beams=config.num_beams,
            length_penalty=config.length_penalty,
            do_sample=False,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = model.processor.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]
