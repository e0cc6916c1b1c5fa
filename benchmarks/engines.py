"""What a quantized model costs in its engine: memory and speed beside 16 bits.

    python benchmarks/engines.py [--engine llama.cpp] [--bits 4] [--group-size 32] [--blocks 6]
                                 [--width 4096] [--repeats 5] [--threads 1] [--mmap]

A LLaVA of real width with a few blocks of random weights is exported twice, at 16 bits and at
`--bits`. Both run in the engine at once, each in a process of its own, and take turns: prompts of
128 tokens, then 24 generated tokens, without a picture. Printed are medians with their spread, and
ratios to 16 bits: absolute numbers are those of this machine now, ratios hold on others.
OpenVINO computes in float32 (its exact mode).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmq_plugins.embedded import llava_checkpoint
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.gguf_server import READY
from mmq_plugins.targets.openvino import OpenVino

from mmq.contracts.target import ExportedLayer, ExportSource, Target, WeightSpec
from mmq.models.loading import load_model
from mmq.models.skeleton import skeleton
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import round_to_nearest

PROMPT, GENERATED = 128, 24  # tokens
MIB = 2**20


def prompt_tokens(number: int) -> list[int]:
    """A prompt that was not read before."""
    return [5 + (k * 7 + number) % 400 for k in range(PROMPT)]


@dataclass
class Running:
    """A model in an engine and what was measured of it."""

    name: str
    process: int
    load: float
    time: Callable[[int], tuple[float, float]]  # number of the prompt -> prompt, decode
    prompt: list[float] = field(default_factory=list)  # tokens per second
    decode: list[float] = field(default_factory=list)

    def ask(self, number: int) -> None:
        """Read a prompt, and generate."""
        prompt, decode = self.time(number)
        self.prompt.append(prompt)
        self.decode.append(decode)

    def memory(self) -> float:
        """Resident memory at most, in MiB."""
        status = Path(f"/proc/{self.process}/status").read_text()
        (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak) / 1024


@dataclass
class LlamaServer:
    """llama.cpp's server."""

    address: str

    def time(self, number: int) -> tuple[float, float]:
        """Tokens per second of a prompt, and of what is generated."""
        body = {
            "prompt": prompt_tokens(number),
            "n_predict": GENERATED,
            "temperature": 0,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        call = urllib.request.Request(
            f"{self.address}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(call, timeout=600) as response:
            timings = json.load(response)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]


def save_model(folder: Path, blocks: int, width: int) -> None:
    """A LLaVA with a small tower and random float16 weights; the embedded one's tokenizer."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    config = LlavaConfig.from_pretrained(llava_checkpoint())
    text = config.text_config
    text.hidden_size, text.num_hidden_layers = width, blocks
    text.intermediate_size = width * 11 // 4 // 256 * 256
    text.num_attention_heads = text.num_key_value_heads = width // 128
    text.head_dim, text.max_position_embeddings = 128, 512
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    LlavaProcessor.from_pretrained(llava_checkpoint()).save_pretrained(folder)


def export(target: Target, source: Path, out: Path, bits: int, group_size: int) -> None:
    """Write a model in an engine's format; 16 bits are not quantized."""
    model = load_model(str(source), "float16")
    out.mkdir()

    def layers() -> Iterator[ExportedLayer]:
        for name, component in model.components.items():
            for layer in component.layers:
                weight = layer.module.weight.detach()
                if bits < 16 and name == "llm":
                    yield ExportedLayer(
                        layer.name,
                        name,
                        round_to_nearest(weight, bits, group_size, MappingType.SYMMETRIC),
                    )

    specs = {
        layer.name: WeightSpec(bits, group_size)
        for layer in model.components["llm"].layers
        if bits < 16
    }
    dtype = "float32" if isinstance(target, OpenVino) else "float16"  # what it computes in
    target.export(ExportSource(source, skeleton(str(source)), dtype, specs=specs), layers(), out)


@contextmanager
def serving(name: str, folder: Path, threads: int, mmap: bool) -> Iterator[Running]:
    """A folder's model in llama.cpp."""
    command = [sys.executable, "-m", "mmq_plugins.targets.gguf_server", str(folder)]
    command += ["--threads", str(threads), "--context", "512", "--until-eof"]
    command += [] if not mmap else ["--mmap"]
    start = time.perf_counter()
    with started(command) as process:
        address = next(line for line in process.stdout if line.startswith(READY))
        server = LlamaServer(address.removeprefix(READY).strip())
        yield Running(name, process.pid, time.perf_counter() - start, server.time)


@contextmanager
def in_openvino(name: str, folder: Path, threads: int) -> Iterator[Running]:
    """A folder's model in OpenVINO, in a process that is this file again."""
    start = time.perf_counter()
    with started([sys.executable, __file__, "--run", str(folder), "--threads", str(threads)]) as p:
        p.stdout.readline()
        load = time.perf_counter() - start

        def ask(number: int) -> tuple[float, float]:
            p.stdin.write(f"{number}\n")
            p.stdin.flush()
            prompt, decode = json.loads(p.stdout.readline())
            return prompt, decode

        yield Running(name, p.pid, load, ask)


@contextmanager
def started(command: list[str]) -> Iterator[Any]:
    """A process that is killed at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process
        process.kill()


def run_openvino(folder: Path, threads: int) -> None:
    """Time prompts whose numbers are read from standard input."""
    with OpenVino(threads=threads).open(folder, "cpu") as model:
        decoder: Any = model.module
        print("ready", flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            output = decoder.forward(
                torch.tensor([prompt_tokens(int(line))]),
                position_ids=torch.arange(PROMPT)[None],
            )
            read = time.perf_counter()
            for step in range(GENERATED):
                output = decoder.forward(
                    output.logits[:, -1].argmax(-1, keepdim=True),
                    position_ids=torch.tensor([[PROMPT + step]]),
                    past_key_values=output.past_key_values,
                )
            end = time.perf_counter()
            print(json.dumps([PROMPT / (read - start), GENERATED / (end - read)]), flush=True)


def spread(values: list[float]) -> str:
    """The median, least and greatest of some values."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", choices=("llama.cpp", "openvino"), default="llama.cpp")
    parser.add_argument("--run", type=Path, help="a folder that OpenVINO runs; used internally")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mmap", action="store_true", help="map files instead of reading them")
    arguments = parser.parse_args()
    if arguments.run:
        run_openvino(arguments.run, arguments.threads)
        return
    openvino = arguments.engine == "openvino"
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        source = Path(scratch) / "source"
        save_model(source, arguments.blocks, arguments.width)
        models = []
        for name, bits in (("16", 16), (str(arguments.bits), arguments.bits)):
            folder = Path(scratch) / name
            target = OpenVino() if openvino else Gguf()
            export(target, source, folder, bits, arguments.group_size)
            running = (
                in_openvino(name, folder, arguments.threads)
                if openvino
                else serving(name, folder, arguments.threads, arguments.mmap)
            )
            models.append(stack.enter_context(running))
        for number in range(arguments.repeats + 1):
            for model in models:
                model.ask(number)
        print_table(arguments.engine, models, Path(scratch))


def print_table(engine: str, models: list[Running], folder: Path) -> None:
    """Print what was measured, and ratios to the first model."""
    print("| engine | bits | file MiB | load s | peak MiB | prompt tokens/s | decode tokens/s |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        size = sum(path.stat().st_size for path in (folder / model.name).iterdir()) / MIB
        print(
            f"| {engine} | {model.name} | {size:.0f} | {model.load:.1f} | {model.memory():.0f} | "
            f"{spread(model.prompt[1:])} | {spread(model.decode[1:])} |"
        )
    plain, small = models
    memory = small.memory() / plain.memory()
    prompt, decode = (
        statistics.median(a / b for a, b in zip(one[1:], other[1:], strict=True))
        for one, other in ((small.prompt, plain.prompt), (small.decode, plain.decode))
    )
    print(f"| ratio | | | | {memory:.2f} | {prompt:.2f} | {decode:.2f} |")


if __name__ == "__main__":
    main()
