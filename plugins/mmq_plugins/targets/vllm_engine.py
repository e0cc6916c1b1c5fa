"""Run an exported model in vLLM, in a process of vLLM's own environment."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import transformers

from mmq.contracts.family import ModelFamily, check_requests
from mmq.contracts.vlm import (
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    Progress,
    Request,
    VisionLanguageModel,
)
from mmq.data.png import png_base64
from mmq.errors import InputError
from mmq.models.skeleton import family_of
from mmq_plugins.targets.own_environment import EngineProcess, engine_process
from mmq_plugins.targets.vllm_environment import WORKER

MOST_IMAGES = 16  # per request, where the family sets no limit
_base64 = lru_cache(64)(png_base64)  # questions about one picture follow each other


@dataclass(slots=True)
class VllmModel(VisionLanguageModel):
    """A model in another process, which reads the prompts that the simulated model reads."""

    family: ModelFamily
    processor: Any
    process: EngineProcess

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """The family's protocol for a format."""
        return self.family.protocol(answer_format)

    def render(self, request: Request) -> str:
        """The prompt with the model's chat template applied."""
        return self.family.chat(self.processor, request.prompt, len(request.images))

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request, greedily; InputError for beam search."""
        check_requests(requests, self.family)
        if config.num_beams > 1:
            raise InputError(
                f"num_beams: {config.num_beams}, but vLLM decodes greedily; give --num-beams 1, "
                f"also to the trial that is exported"
            )
        sampling = {"max_tokens": config.max_new_tokens, "min_tokens": config.min_new_tokens}
        size = config.batch_size
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        outputs: list[str] = []
        for batch in progress(batches, "generate"):
            items = [
                {"prompt": self.render(r), "images": [_base64(image) for image in r.images]}
                for r in batch
            ]
            outputs += self.process.ask({"requests": items, "sampling": sampling})["texts"]
        return [text.strip() for text in outputs]


@contextmanager
def running(folder: Path, python: str, dtype: str) -> Iterator[VllmModel]:
    """The model of an exported folder in vLLM; the process ends with the context.

    InputError, with vLLM's own words, where it does not load the folder.
    """
    family = family_of(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))
    options = {
        "dtype": dtype,
        "max_model_len": -1,  # what fits
        "limit_mm_per_prompt": {"image": family.most_images or MOST_IMAGES},
        "enforce_eager": True,  # compiling takes minutes
        "enable_prefix_caching": False,  # a prompt read in other pieces rounds differently
        "mm_processor_cache_gb": 0,
        "skip_mm_profiling": True,
        "disable_log_stats": True,
    }
    command = [python, str(WORKER), str(folder.absolute()), json.dumps(options)]
    with engine_process("vLLM", command, str(folder)) as process:
        yield VllmModel(family, family.load_processor(str(folder)), process)
