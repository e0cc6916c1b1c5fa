"""Any other vision-language model of transformers, split by the paths of its blocks."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mmq.contracts import (
    DEFAULT_INPUTS,
    GENERAL_PROTOCOLS,
    AnswerFormat,
    AnswerProtocol,
    ComponentSpec,
    GenerationConfig,
    InputOptions,
    ModelFamily,
    architecture_of,
)
from mmq.errors import InputError
from mmq.models.chat_template import adds_image_tokens, answer_lead, image_mark, render_chat
from mmq.models.generation import decoding
from mmq.models.loading import load_weights
from mmq.models.transformers_family import check_vocabulary, load_processor
from mmq.system.versions import major_version
from mmq_plugins.models.block_diffusion import canvas_inputs, canvas_length, denoised
from mmq_plugins.models.generic_inputs import (
    NEEDS_PICTURE,
    answer_ids,
    answered_inputs,
    is_encoder_decoder,
    picture_reason,
    processed,
    prompt_inputs,
    prompt_length,
)
from mmq_plugins.models.own_words import NONE, OWN_WORDS
from mmq_plugins.models.splitting import split

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.models.loading import LoadedModel

log = logging.getLogger(__name__)


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
    stays at 16 bits; `mmq size` lists it. Prompts follow the chat template of the processor, else
    of the tokenizer, else the words that the kind of model was trained with.
    """

    version: ClassVar[int] = 2
    is_fallback: ClassVar[bool] = True
    formats: Mapping[AnswerFormat, AnswerProtocol] = GENERAL_PROTOCOLS
    most_images: ClassVar[int | None] = None

    def __init__(self, model_type: str = "", encodes_text: bool = False) -> None:
        self.model_type = model_type
        self.words = OWN_WORDS.get(model_type, NONE)
        self.formats = {**GENERAL_PROTOCOLS, **self.words.prompts}
        is_fixed = 0 < self.words.fixed_in <= major_version("transformers")
        self.one_by_one = "" if is_fixed else self.words.one_by_one
        # an encoder's positions count from the left, a decoder continues on the right
        self.tokenization = {"padding_side": "right" if encodes_text else "left"}
        self._warned = False

    def for_model(self, config: Any) -> Self:
        """The family with the words of this kind of model."""
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SUPPORTED

        family = type(self)(config.model_type, is_encoder_decoder(config))
        model_class = SUPPORTED[type(config)]
        reason = picture_reason(config, model_class)
        family.needs_pictures = NEEDS_PICTURE if family.words.needs_pictures else reason
        if not hasattr(model_class, "generate"):  # PI0's writes actions of a robot
            family.formats = {}
        return family

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
    ) -> nn.Module:
        """The model; no remote code."""
        from transformers import AutoModelForImageTextToText

        with needed_packages(source):
            model: nn.Module = load_weights(
                AutoModelForImageTextToText, source, dtype, device, allow_pickle, allow_unread
            )
        return model

    def check_processor(self, module: nn.Module, processor: Any, source: str) -> None:
        """InputError for a tokenizer of another model."""
        check_vocabulary(module, processor, source)

    def chat(
        self,
        processor: Any,
        prompt: str,
        images: int,
        options: InputOptions = DEFAULT_INPUTS,
    ) -> str:
        """A prompt after its pictures, by the chat template or in the model's own words."""
        if (rendered := render_chat(processor, prompt, images, options)) is not None:
            return rendered
        if not self.words.prompts and not self._warned:
            log.warning(
                "%s has no chat template, and mmq does not know its prompt format: the prompts "
                "are those of the task, so scores may be far below the model's ability. Add the "
                "model's chat_template.jinja to its folder, or write the prompt with --prompt",
                self.model_type or "This checkpoint",
            )
            self._warned = True
        marks = "" if adds_image_tokens(processor) else image_mark(processor)
        return f"{marks * images}{prompt}"

    def prompt_tokens(
        self, processor: Any, images: "Sequence[Image]", texts: Sequence[str]
    ) -> list[int]:
        """The length in tokens of each prompt with these pictures, which are processed once."""
        ids = processed(processor, [images], texts[:1])
        first = next((ids[k] for k in ("input_ids", "decoder_input_ids") if k in ids), None)
        lengths = [len(processor.tokenizer(text)["input_ids"]) for text in texts]
        pictures = (0 if first is None else first.shape[-1]) - lengths[0]
        return [length + pictures for length in lengths]

    def calibration_forwards(
        self,
        model: "LoadedModel",
        images: "Sequence[Sequence[Image]]",
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """One forward of the whole model on each prompt with its answer right after it."""
        lead = answer_lead(model.processor, model.inputs)

        def one(pictures: "Sequence[Image]", text: str, answer: str) -> Tensor:
            module: Any = model.module
            inputs = prompt_inputs(module, model.processor, [pictures], [text])
            space = "" if not answer or text[-1:].isspace() else lead
            tokens = answer_ids(model.processor.tokenizer, text, space + answer if answer else "")
            if length := canvas_length(module.config):
                output = module(**canvas_inputs(module, inputs, tokens))
                return choices(output.logits[0, : min(len(tokens) + 1, length)])
            complete = answered_inputs(module, inputs, [tokens], self.words.answer_type)
            with _without_cache(module) as setting:
                output = module(**complete, **setting)
            return choices(output.logits[0, -1 - len(tokens) :])

        def choices(logits: Tensor) -> Tensor:
            return logits.float().log_softmax(-1)

        @torch.no_grad()
        def forward() -> Tensor:
            examples = zip(images, texts, answers, strict=True)
            return torch.cat([one(*example) for example in examples])

        return [forward]

    @torch.no_grad()
    def generate(
        self,
        model: "LoadedModel",
        images: "Sequence[Sequence[Image]]",
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """The generated answers, cut by token position and without reasoning."""
        module: Any = model.module
        inputs = prompt_inputs(module, model.processor, images, texts)
        watch = model.watched()
        settings = decoding(config, watch, module, model.processor.tokenizer)
        if canvas_length(module.config):
            tokens = denoised(module, inputs, settings)
        else:
            tokens = module.generate(**inputs, **settings)
        if watch.start < 0:  # Janus's drops the watch
            watch.start = prompt_length(inputs, tokens)
        return model.answers(tokens, watch, texts)


@contextmanager
def _without_cache(module: nn.Module) -> Iterator[dict[str, Any]]:
    """No part of the model caches keys and values; yields what its forward takes to that end.

    A cache among a block's arguments would grow with every further call of the block. Not every
    forward has `use_cache`, so the configurations of all parts are changed meanwhile.
    """
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    before = {key: c.use_cache for key, c in configs.items() if hasattr(c, "use_cache")}
    try:
        for key in before:
            configs[key].use_cache = False
        yield {"use_cache": False} if "use_cache" in signature(module.forward).parameters else {}
    finally:
        for key, use_cache in before.items():
            configs[key].use_cache = use_cache
