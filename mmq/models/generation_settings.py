"""A checkpoint's own decoding settings: which of them apply to deterministic answers."""

import logging
from typing import Any

from torch import nn

from mmq.contracts.family import ModelFamily
from mmq.models.checkpoint import read_config
from mmq.system.versions import major_version

log = logging.getLogger(__name__)
APPLIED = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
    "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "early_stopping",
    "exponential_decay_length_penalty", "guidance_scale", "remove_invalid_values", "stop_strings",
)  # fmt: skip
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
CACHES = ("quantized", "offloaded")  # with other numbers, or for GPUs alone


def generation_settings(source: str, family: ModelFamily) -> dict[str, Any]:
    """The settings of generation_config.json, else of config.json, that change answers, by name.

    They apply, as its authors evaluated the model with them; sampling, lengths and beams are the
    task's. {} for a family whose language model generates apart from its checkpoint's settings.
    """
    from transformers import GenerationConfig

    own_decoder = bool(getattr(family, "decoder", None))
    if not family.formats or own_decoder:
        return {}
    try:
        config: Any = GenerationConfig.from_pretrained(source)
    except OSError:  # older checkpoints have them in config.json, which transformers reads then
        config = _of_model_config(source)
    plain: Any = GenerationConfig()
    settings = {
        name: getattr(config, name, None)
        for name in APPLIED
        if getattr(config, name, None) != getattr(plain, name, None)
    }
    if settings:
        log.info("%s: its decoding settings apply: %s", source, settings)
    return settings


def _of_model_config(source: str) -> Any:
    """The decoding settings in a checkpoint's config.json, as transformers finds them."""
    from transformers import GenerationConfig

    if major_version("transformers") < 5:
        return GenerationConfig.from_model_config(read_config(source))
    return GenerationConfig.from_pretrained(
        source, config_file_name="config.json", _from_model_config=True
    )


def reset_others_(model: nn.Module) -> None:
    """Reset decoding settings of a model that are not `APPLIED`.

    They are the task's (beams, lengths), make answers random or depend on the time, or need more
    than a model and its inputs.
    """
    from transformers import GenerationConfig

    plain = vars(GenerationConfig())
    for module in model.modules():
        config = vars(module).get("generation_config")
        if config is None:
            continue
        cache = str(getattr(config, "cache_implementation", None))
        exempt = {*APPLIED, *TOKENS, "transformers_version"}
        if not cache.startswith(CACHES):
            exempt.add("cache_implementation")
        changed = [
            name
            for name, default in plain.items()
            if name not in exempt and not name.startswith("_") and getattr(config, name) != default
        ]
        for name in changed:
            setattr(config, name, plain[name])
        if changed:
            log.info("Decoding settings that do not apply: %s", ", ".join(changed))
