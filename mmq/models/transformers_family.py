"""The base of model families with a model class and a processor class of transformers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from mmq.contracts.family import ModelFamily, with_answer
from mmq.contracts.vlm import (
    DEFAULT_INPUTS,
    GENERAL_PROTOCOLS,
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    InputOptions,
)
from mmq.errors import InputError
from mmq.models.chat_template import render_chat, special_tokens
from mmq.models.checkpoint_errors import reading
from mmq.models.generation import decoding
from mmq.models.loading import load_weights
from mmq.models.spread import Spread
from mmq.models.stages import run_stages
from mmq.system.regular_file import read_text
from mmq.tensors.offloaded import load_for_good_, read_parameter

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel


def answer_choices(logits: Tensor, mask: Tensor, prompt_mask: Tensor) -> Tensor:
    """Log-probabilities (rows, tokens) of every answer token and the one after each answer.

    logits (n, length, tokens) and mask (n, length): of texts with their answers, padded on the
    left; prompt_mask: the mask of the texts alone.
    """
    answered = (mask.sum(-1) - prompt_mask.sum(-1)).clamp(min=0).tolist()
    rows = [text[-1 - count :] for text, count in zip(logits, answered, strict=True)]
    return torch.cat(rows).float().log_softmax(-1)


def image_token(config: Any) -> int:
    """The id of the image token; InputError if the configuration names none."""
    for name in ("image_token_id", "image_token_index"):
        if (token := getattr(config, name, None)) is not None:
            return int(token)
    raise InputError(
        "model: its config.json names no image token; add image_token_index (the id of <image> in "
        "its tokenizer), as current checkpoints have it"
    )


def query_tokens(module: Any, features: Tensor) -> Tensor:
    """A Q-Former's query tokens for the features of each picture, (n, queries, width)."""
    tokens: Tensor = module.query_tokens
    if tokens.is_meta:  # offloaded: it is there only while the whole model runs
        tokens = read_parameter(module, "query_tokens").to(features.device)
    return tokens.expand(features.shape[0], -1, -1)


def load_processor(architecture: Any, source: str) -> Any:
    """A checkpoint's processor; InputError for a damaged one, with the file if it is known."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "preprocessor_config.json").exists():
        combined = folder / "processor_config.json"  # transformers 5 writes both settings into one
        if not (combined.exists() and "image_processor" in read_text(combined, "model")):
            raise InputError(f"Model {source!r}: its folder has no preprocessor_config.json")
    with reading(f"Model {source!r}: its processor or tokenizer cannot be loaded"):
        check_tokenizer(Path(source) / "tokenizer.json")
        processor = architecture.from_pretrained(source, trust_remote_code=False)
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise InputError(
                f"Model {source!r} has no processor for pictures and text (no {part}); copy "
                f"preprocessor_config.json and the tokenizer's files into its folder"
            )
    if processor.tokenizer.pad_token is None:
        raise InputError(
            f"Model {source!r}: its tokenizer has no padding token; add pad_token to its "
            f"tokenizer_config.json, as current checkpoints have it"
        )
    return processor


def check_tokenizer(path: Path) -> None:
    """InputError for an unreadable tokenizer.json: transformers would not name it."""
    if path.is_file():
        from tokenizers import Tokenizer

        with reading(f"model: {path} is not a readable tokenizer", "Copy or download it again"):
            Tokenizer.from_file(str(path))


def check_vocabulary(model: Any, processor: Any, source: str) -> None:
    """InputError for a tokenizer with more tokens than the model, thus of another model.

    Added tokens do not count: BLIP-2's retrieval model has no row for the image token, which its
    texts never contain.
    """
    rows, tokens = len(model.get_input_embeddings().weight), processor.tokenizer.vocab_size
    if tokens > rows:
        raise InputError(
            f"Model {source!r}: its tokenizer has {tokens} tokens, but the model embeds {rows}; "
            f"use the tokenizer's files of this model"
        )


class TransformersFamily(ModelFamily):
    """A family with a model class and a processor class of transformers.

    Image features replace the embeddings of image tokens in the prompt.
    """

    model_class: ClassVar[str]
    processor_class: ClassVar[str]
    formats: Mapping[AnswerFormat, AnswerProtocol] = GENERAL_PROTOCOLS
    tokenization: Mapping[str, Any] = {"padding_side": "left"}
    decoder: ClassVar[str] = ""  # path of the submodule that generates; "": the model
    # paths of modules whose forward looks where their weights are, and fails if they are offloaded
    never_offloaded: ClassVar[tuple[str, ...]] = ()

    def skeleton(self, config: Any) -> nn.Module:
        """The model without weights."""
        import transformers

        model: nn.Module = getattr(transformers, self.model_class)(config)
        return model

    def load_processor(self, source: str) -> Any:
        """The checkpoint's processor, padding on the family's side; no remote code."""
        import transformers

        processor = load_processor(getattr(transformers, self.processor_class), source)
        processor.tokenizer.padding_side = self.tokenization["padding_side"]
        if getattr(processor, "patch_size", 0) is None:
            raise InputError(
                f"model: the processor of {source} has no patch_size; add it to its "
                f"processor_config.json, as current checkpoints have it"
            )
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
        import transformers

        architecture = getattr(transformers, self.model_class)
        model: nn.Module = load_weights(
            architecture, source, dtype, device, allow_pickle, allow_unread
        )
        for path in self.never_offloaded if isinstance(device, Spread) else ():
            load_for_good_(model.get_submodule(path), device)
        return model

    def check_processor(self, module: nn.Module, processor: Any, source: str) -> None:
        """InputError for a tokenizer of another model, or a model without an image token."""
        if self.formats:
            image_token(module.config)
        check_vocabulary(module, processor, source)

    def chat(
        self,
        processor: Any,
        prompt: str,
        images: int,
        options: InputOptions = DEFAULT_INPUTS,
    ) -> str:
        """A prompt by the checkpoint's chat template, else in the family's own words."""
        rendered = render_chat(processor, prompt, images, options)
        return self.own_words(prompt, images) if rendered is None else rendered

    def own_words(self, prompt: str, images: int) -> str:
        """A prompt about some pictures, for a checkpoint without a chat template."""
        return prompt

    def prompt_tokens(
        self, processor: Any, images: Sequence[Image.Image], texts: Sequence[str]
    ) -> list[int]:
        """The length in tokens of each prompt with these pictures."""
        _, mask = self._ids(processor, texts, [*images] * len(texts))
        return [int(length) for length in mask.sum(-1)]

    def pixels(self, model: "LoadedModel", images: Sequence[Image.Image]) -> Tensor:
        """Pixels (n, 3, height, width) as the processor makes them."""
        inputs = model.processor.image_processor(images=list(images), return_tensors="pt")
        pixels: Tensor = inputs["pixel_values"].to(model.device, model.module.dtype)
        return pixels

    def calibration_forwards(
        self,
        model: "LoadedModel",
        images: Sequence[Sequence[Image.Image]],
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """One forward: the stages, if there are pictures, then the part that generates."""

        def forward() -> Tensor:
            module: Any = model.module
            flat = [image for of_text in images for image in of_text]
            complete = [with_answer(*pair) for pair in zip(texts, answers, strict=True)]
            tokens = self._tokens if flat else self._text_tokens
            ids, mask = tokens(model, complete)
            if flat:
                features = run_stages(model, self.stages, self.pixels(model, flat))
                features = features.reshape(len(texts), -1, features.shape[-1])
                embeddings = self._embeddings(module, ids, features)
            else:
                embeddings = module.get_input_embeddings()(ids)
            with torch.no_grad():
                output = module.get_submodule(self.decoder)(
                    inputs_embeds=embeddings,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                    use_cache=False,
                )
            return answer_choices(output.logits, mask, tokens(model, texts)[1])

        return [forward]

    @torch.no_grad()
    def generate_from_features(
        self,
        model: "LoadedModel",
        features: Tensor,
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """The generated continuations, from features (n, image tokens, width), cut by position.

        Image and prompt are read once per sample, not once per beam: transformers would expand the
        beams first. The keys and values of all but the last token are computed, then repeated, and
        generation resumes from there with the same tokens as without (a test compares).
        """
        module: Any = model.module
        ids, mask = self._tokens(model, texts)
        decoder = module.get_submodule(self.decoder)
        # positions count from the text's first token, not from the padding
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        prefix = decoder(
            inputs_embeds=self._embeddings(module, ids, features)[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            use_cache=True,
        )
        cache = prefix.past_key_values
        cache.batch_repeat_interleave(config.num_beams)
        watch = model.watched()
        settings = decoding(config, watch, decoder, model.processor.tokenizer)
        tokens = decoder.generate(
            input_ids=ids, attention_mask=mask, past_key_values=cache, **settings
        )
        watch.start = ids.shape[1]
        return model.answers(tokens, watch, texts)

    def _tokens(self, model: "LoadedModel", texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids with their image tokens, and the attention mask, (n, length)."""
        # processors insert image tokens only if they get an image
        blank = Image.new("RGB", (32, 32))
        blanks = [blank] * sum(self.image_count(model.processor, text) for text in texts)
        ids, mask = self._ids(model.processor, texts, blanks)
        return ids.to(model.device), mask.to(model.device)

    def _text_tokens(self, model: "LoadedModel", texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask of texts without pictures, (n, length)."""
        inputs = model.processor.tokenizer(list(texts), padding=True, return_tensors="pt")
        return inputs["input_ids"].to(model.device), inputs["attention_mask"].to(model.device)

    def _ids(
        self, processor: Any, texts: Sequence[str], images: Sequence[Image.Image]
    ) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask for texts with all of their pictures."""
        special = special_tokens(processor.tokenizer, texts)
        inputs = processor(
            images=list(images), text=list(texts), padding=True, return_tensors="pt", **special
        )
        return inputs["input_ids"], inputs["attention_mask"]

    def image_count(self, processor: Any, text: str) -> int:
        """Number of pictures in a rendered prompt; one if nothing marks them."""
        mark = getattr(processor, "image_token", None)
        return max(1, text.count(mark)) if self.most_images != 1 and mark else 1

    def _embeddings(self, module: Any, ids: Tensor, features: Tensor) -> Tensor:
        """Embeddings (n, length, width) with the features in place of image tokens."""
        token = image_token(module.config)
        embeddings: Tensor = module.get_input_embeddings()(ids)
        is_image = ids == token
        counts, expected = is_image.sum(-1), features.shape[1]
        # with too few, the model would silently not see the picture
        if bool((counts != expected).any()):
            raise InputError(
                f"the texts have {sorted(set(counts.tolist()))} image tokens, but a picture has "
                f"{expected} features: the checkpoint's processor_config.json (num_query_tokens, "
                f"patch_size, num_additional_image_tokens and so on) or its config.json "
                f"(the image token's id) does not match the model, or a text contains an image "
                f"token"
            )
        return embeddings.masked_scatter(is_image.unsqueeze(-1), features.to(embeddings.dtype))
