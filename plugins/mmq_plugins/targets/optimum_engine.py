"""Run a rewritten IR in optimum-intel, in a process of its own environment."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import GenerationConfig, Request, VisionLanguageModel
from mmq.export.facts import read_facts
from mmq.models.checkpoint import read_config
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import family_of, on_meta
from mmq_plugins.targets.own_environment import (
    EngineProcess,
    engine_process,
    find_python,
    installed_version,
)

PYTHON = "MMQ_OPTIMUM_PYTHON"  # environment variable: the Python that it is installed for
PACKAGE = "optimum-intel"
ENVIRONMENT = ".venv-optimum"  # that `make test-optimum` creates
WORKER = Path(__file__).with_name("optimum_worker.py")
ASK = """python - PICTURE.png <<'EOF'
import sys
from PIL import Image
from optimum.intel import OVModelForVisualCausalLM
from transformers import AutoProcessor

folder = {folder!r}
model = OVModelForVisualCausalLM.from_pretrained(folder, device="CPU")
processor = AutoProcessor.from_pretrained(folder)
inputs = processor(
    images=[Image.open(sys.argv[1]).convert("RGB")],
    text=[{prompt!r}],
    return_tensors="pt",
)
tokens = model.generate(**inputs, max_new_tokens=30)
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])
EOF"""


def optimum_python() -> str:
    """The Python that has optimum-intel; "" if none has. InputError if it is not there."""
    return find_python(PYTHON, PACKAGE, f"{ENVIRONMENT}/bin/python")


def optimum_command(folder: Path) -> str:
    """A command that asks the model about a picture in optimum-intel's environment."""
    return ASK.format(folder=str(folder), prompt=str(read_facts(folder).get("prompt") or ""))


class ElsewhereGenerated:
    """Replacements for methods of a model of transformers: it generates in another process."""

    engine: EngineProcess
    device = torch.device("cpu")

    def generate(self, **arguments: Any) -> Tensor:
        """Token ids (n, length), prompts included."""
        inputs = {k: v.contiguous() for k, v in arguments.items() if isinstance(v, Tensor)}
        others = {
            name: value
            for name, value in arguments.items()
            if name not in inputs and name != "logits_processor" and value is not None
        }
        body = {"inputs": base64.b64encode(save(inputs)).decode(), "arguments": others}
        return torch.tensor(self.engine.ask(body)["tokens"])


class OptimumModel(LoadedModel):
    """A model whose processor is in this process, and which generates in another one."""

    def engine(self) -> Engine:
        """OpenVINO in the other process."""
        process: Any = self.module.engine
        return Engine(
            "OpenVINO with optimum-intel",
            installed_version(optimum_python(), PACKAGE),
            torch.get_num_threads(),
            process.process.pid,
        )

    def time_answer(self, request: Request, config: GenerationConfig) -> AnswerTiming:
        """The time of two answers."""
        return VisionLanguageModel.time_answer(self, request, config)


@contextmanager
def opened_in_optimum(folder: Path, settings: Mapping[str, Any]) -> Iterator[LoadedModel]:
    """The model of an exported folder in optimum-intel.

    InputError, with its reason, if it does not load the folder.
    """
    config = read_config(str(folder))
    family = family_of(config)
    module: Any = on_meta(str(folder), family, config).float().eval()
    kind = type(module)
    command = [optimum_python(), str(WORKER), str(folder.absolute()), json.dumps(dict(settings))]
    with engine_process("optimum-intel", command, str(folder)) as process:
        module.__class__ = type(kind.__name__, (ElsewhereGenerated, kind), {"engine": process})
        processor = family.load_processor(str(folder))
        yield OptimumModel.without_components(module, processor, family, str(folder))
