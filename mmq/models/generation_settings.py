"""A checkpoint's own decoding settings: which of them apply to deterministic answers."""

import logging
from typing import Any

from mmq.contracts.family import ModelFamily

log = logging.getLogger(__name__)
APPLIED = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
    "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "early_stopping",
    "exponential_decay_length_penalty", "guidance_scale", "remove_invalid_values",
)  # fmt: skip


def generation_settings(source: str, family: ModelFamily) -> dict[str, Any]:
    """The settings of generation_config.json that change answers, by name.

    They apply, as its authors evaluated the model with them; sampling, lengths and beams are the
    task's. {} for a family whose language model generates apart from its checkpoint's settings.
    """
    from transformers import GenerationConfig

    own_decoder = bool(getattr(family, "decoder", None))
    if not family.formats or own_decoder:
        return {}
    try:
        config: Any = GenerationConfig.from_pretrained(source)
    except OSError:  # most folders made by hand have none
        return {}
    plain: Any = GenerationConfig()
    settings = {
        name: getattr(config, name, None)
        for name in APPLIED
        if getattr(config, name, None) != getattr(plain, name, None)
    }
    if settings:
        log.info("%s: its generation_config.json applies: %s", source, settings)
    return settings
