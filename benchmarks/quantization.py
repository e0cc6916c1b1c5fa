"""Cost of quantizing whole models: seconds, one block at full width, peak memory.

    python benchmarks/quantization.py [--sections models blocks memory] [--quantizers rtn gptq awq]

Seconds are CPU seconds, which other work on the machine hardly changes; give it one thread.

models: every component of the embedded models at all widths into a fresh store.

blocks: one block of a real configuration, with random weights and inputs, at all widths. "read"
(forward and Gram matrices) grows with the calibration pairs, "solve" does not; the hours are for
all blocks of the component with 128 pairs, without the forwards of earlier components.

memory: a checkpoint of BLIP-2 with OPT 2.7B, cut to a few blocks a component, is quantized in a
fresh process. Its peak beyond the loaded model is held against the budget: the hidden states of
all calls before and after a block with what else it is given, the Gram matrices of its layers, its
codes and parameters at all widths, and a float32 copy of the weights that are solved together. For
gptq the Hessian of the widest layer comes on top, in float64 for the Cholesky: one triangle of it,
as many bytes as its Gram matrix. awq gets no more: with groups it copies no whole Gram matrix.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import psutil
import torch
from memory import write_checkpoint_apart

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts import artifacts
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import registry
from mmq.contracts.quantizer import Quantizer
from mmq.models.loading import read_config
from mmq.prepare import Prepared, prepare
from mmq.quantization import sequential as block_quantization
from mmq.quantization.modules import quantize_module

CONFIGS = Path(__file__).parents[1] / "tests" / "data" / "configs"
TASKS = {"embedded-blip2": "vqa", "embedded-retrieval": "retrieval", "embedded-llava": "vqa"}
PAIRS = 128  # calibration pairs of the default
BATCH = 16  # pairs a forward, as in mmq.data.calibration


# --- whole embedded models -----------------------------------------------------------------------
def prepared_for(options: argparse.Namespace, quantizer: str, model: str, task: str) -> Prepared:
    """A prepared evaluation whose trials may use all widths."""
    eval_options = EvalOptions(model, task, quantizer=quantizer, limit="4")
    eval_options = replace(eval_options, calibration_samples=options.pairs)
    uniform = BitAllocation.uniform
    return prepare(eval_options, {}, lambda parts: [uniform(parts, b) for b in options.widths])


def models(options: argparse.Namespace) -> None:
    print(f"{options.pairs} calibration pairs, {options.widths} bits, CPU seconds\n")
    print("| model | quantizer | vit | qformer | llm | all |\n|---|---|---:|---:|---:|---:|")
    for name in options.models:
        for quantizer in options.quantizers:
            prepared = prepared_for(options, quantizer, model=name, task=TASKS[name])
            model, seconds = prepared.load(), {}
            model.stage_cache = None  # nor is anything else computed before
            with tempfile.TemporaryDirectory() as folder:
                filling = prepared.artifacts(Store(Path(folder)), quiet=True)
                for component in model.components:
                    started = time.process_time()
                    filling.fill(model, component, options.widths)
                    seconds[component] = time.process_time() - started
            prepared.task.close()
            seconds["all"] = sum(seconds.values())
            parts = ("vit", "qformer", "llm", "all")
            cells = [f"{seconds[part]:.1f}" if part in seconds else "" for part in parts]
            print(f"| {name} | {quantizer} | {' | '.join(cells)} |", flush=True)


# --- one block of the real widths ----------------------------------------------------------------
class Part(NamedTuple):
    """A component of a real model: `built` blocks, which read `tokens` of a calibration pair."""

    name: str
    config: str
    part: str  # of the configuration
    architecture: str
    path: str  # of the blocks
    tokens: int
    built: int = 1


BLIP2, LLAVA = "blip2-opt-2.7b.json", "llava-1.5-7b.json"
VIT, QFORMER, LLM = "vision_config", "qformer_config", "text_config"
CLIP = "vision_model.encoder.layers"
PARTS = {
    "vit-g": Part("ViT-g", BLIP2, VIT, "Blip2VisionModel", "encoder.layers", 257),
    # every other block attends to the picture, too
    "qformer": Part("Q-Former", BLIP2, QFORMER, "Blip2QFormerModel", "encoder.layer", 32, built=2),
    "opt": Part("OPT 2.7B", BLIP2, LLM, "OPTModel", "decoder.layers", 32 + 16),
    "clip": Part("CLIP ViT-L", LLAVA, VIT, "CLIPVisionModel", CLIP, 577),
    "llama": Part("LLaMA 7B", LLAVA, LLM, "LlamaModel", "layers", 576 + 32),
}


def build(part: Part) -> tuple[torch.nn.Module, Any, int]:
    """Some blocks with random weights, their configuration, and how many the whole model has."""
    import transformers

    config = getattr(read_config(str(CONFIGS / part.config)), part.part)
    blocks, config.num_hidden_layers = config.num_hidden_layers, part.built
    if hasattr(config, "vocab_size"):
        config.vocab_size = 64  # words are not read
    torch.manual_seed(0)
    module = getattr(transformers, part.architecture)(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.ndim > 1:  # BLIP-2's own start at 1e-10: slow denormal numbers
            parameter.normal_(0, 0.02)
    return module, config, blocks


def forwards_of(part: Part, module: Any, config: Any, pairs: int) -> list[Callable[[], object]]:
    """The forwards on random pictures and texts, in batches as calibration has them."""
    found: list[Callable[[], object]] = []
    for start in range(0, pairs, BATCH):
        size = min(BATCH, pairs - start)
        if part.part == VIT:
            side = config.image_size
            inputs = {"pixel_values": torch.randn(size, 3, side, side)}
        elif part.part == QFORMER:
            read = torch.randn(size, PARTS["vit-g"].tokens, config.encoder_hidden_size)
            queries = torch.randn(size, part.tokens, config.hidden_size)
            inputs = {"query_embeds": queries, "encoder_hidden_states": read}
        else:
            embeddings = torch.randn(size, part.tokens, config.hidden_size)
            inputs = {"inputs_embeds": embeddings, "use_cache": False}
        found.append(partial(module, **inputs))
    return found


@contextmanager
def timed_reading() -> Iterator[list[float]]:
    """A list that fills with the seconds of every pass of the calibration inputs."""
    seconds: list[float] = []
    function = block_quantization.read

    def read(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        groups = function(*arguments, **named)
        seconds.append(time.process_time() - started)
        return groups

    with mock.patch.object(block_quantization, "read", read):
        yield seconds


def blocks(options: argparse.Namespace) -> None:
    print(f"{options.widths} bits, float32, CPU seconds a block\n")
    print(
        "| block | quantizer | tokens | forward | read | solve | blocks "
        f"| hours, {PAIRS} pairs: read | solve | both |\n|---|---" + "|---:" * 8 + "|"
    )
    for name in options.parts:
        part = PARTS[name]
        module, config, count = build(part)
        forwards = forwards_of(part, module, config, options.pairs)
        forwards[0]()  # the first one is slower
        started = time.process_time()
        for forward in forwards:
            forward()
        alone = (time.process_time() - started) / part.built
        for quantizer in options.quantizers:
            solver: Quantizer = registry.load_class("quantizer", quantizer, Quantizer)()
            started = time.process_time()
            with timed_reading() as seconds:
                quantize_module(module, forwards, solver, options.widths, part.path, quiet=True)
            read = sum(seconds) / part.built
            solve = (time.process_time() - started) / part.built - read
            hours = [read * PAIRS / options.pairs * count / 3600, solve * count / 3600]
            tokens = part.tokens * options.pairs if solver.calibrated else 0
            print(
                f"| {part.name} | {quantizer} | {tokens} | {alone:.2f} | {read:.2f} | {solve:.1f} "
                f"| {count} | {hours[0]:.2f} | {hours[1]:.2f} | {sum(hours):.2f} |",
                flush=True,
            )


# --- peak memory ---------------------------------------------------------------------------------
@dataclass(slots=True)
class Budget:
    """The bytes that a block may take, the largest of all blocks; `peak` is what they took."""

    inputs: int = 0
    grams: int = 0
    hessian: int = 0
    widths: int = 0
    copies: int = 0
    peak: int = 0


def size_of(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all tensors in lists, dicts, tuples and dataclasses, each storage once."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if new else 0
    if hasattr(value, "__dataclass_fields__"):
        return sum(size_of(getattr(value, field.name), seen) for field in fields(value))
    if isinstance(value, dict):
        return sum(size_of(part, seen) for part in value.values())
    return sum(size_of(part, seen) for part in value) if isinstance(value, list | tuple) else 0


@contextmanager
def weighed(budget: Budget, quantizer: str) -> Iterator[None]:
    """Measure the arguments and results of the functions that quantize a component's blocks."""
    capture, read, solve = artifacts.capture, block_quantization.read, artifacts.quantize_block

    def captured(*arguments: Any) -> Any:
        calls = capture(*arguments)
        # hidden states once more: as they go into a block, and as they come out of it
        budget.inputs = size_of(calls) + sum(call.hidden.nbytes for call in calls)
        return calls

    def were_read(block: Any, *arguments: Any, **named: Any) -> Any:
        groups = read(block, *arguments, **named)
        budget.grams = max(budget.grams, sum(g.features**2 * 4 for g in groups.values()))
        if quantizer == "gptq":
            widest = max((g.features for g in groups.values()), default=0)
            budget.hessian = max(budget.hessian, widest**2 * 4)
        solved = (sum(block.layers[name].weight.numel() for name in group) for group in groups)
        budget.copies = max(budget.copies, 4 * max(solved, default=0))
        return groups

    def were_solved(*arguments: Any) -> Any:
        result = solve(*arguments)
        budget.widths = max(budget.widths, size_of(result))
        return result

    with (
        mock.patch.object(artifacts, "capture", captured),
        mock.patch.object(block_quantization, "read", were_read),
        mock.patch.object(artifacts, "quantize_block", were_solved),
    ):
        yield


def peak() -> int:
    """Peak resident memory in bytes, of this process alone: ru_maxrss knows its parent's, too."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def child(options: argparse.Namespace) -> None:
    """Quantize one component of the checkpoint in options.child; a line of JSON."""
    prepared = prepared_for(options, options.quantizers[0], model=options.child, task="vqa")
    model = prepared.load()
    model.stage_cache = None
    layer = torch.nn.Sequential(torch.nn.Linear(512, 512))  # libraries warm up on it
    run = partial(layer, torch.randn(1024, 512))
    quantize_module(layer, [run], prepared.quantizer, [4], quiet=True)
    _ = [parameter.sum() for parameter in model.module.parameters()]  # mapped ones are read now
    budget = Budget()
    with tempfile.TemporaryDirectory() as folder, weighed(budget, options.quantizers[0]):
        filling = prepared.artifacts(Store(Path(folder)), quiet=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = psutil.Process().memory_info().rss
        filling.fill(model, options.components[0], options.widths)
    budget.peak = peak() - before
    print(json.dumps(asdict(budget)))


def memory(options: argparse.Namespace) -> None:
    """Every component and quantizer in a process of its own."""
    print(f"{options.pairs} calibration pairs, {options.widths} bits; MiB\n")
    names = [field.name for field in fields(Budget)]
    print(f"| component | blocks | quantizer | {' | '.join(names)} | peak to budget |")
    print("|---|---:|---" + "|---:" * (len(names) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for count in options.blocks:
            content = json.loads(options.config.read_text())
            for part in (VIT, QFORMER, LLM):
                content[part]["num_hidden_layers"] = count
            (checkpoint := Path(folder) / str(count)).mkdir()
            config = Path(folder) / f"{count}.json"
            config.write_text(json.dumps(content))
            write_checkpoint_apart(config, str(checkpoint))
            calibrated = [name for name in options.quantizers if name != "rtn"]
            for component, quantizer in product(options.components, calibrated):
                budget = measure_size(options, checkpoint, component, quantizer)
                cells = [f"{getattr(budget, name) / 2**20:.0f}" for name in names]
                allowed = sum(getattr(budget, name) for name in names if name != "peak")
                cells.append(f"{budget.peak / allowed:.2f}")
                print(f"| {component} | {count} | {quantizer} | {' | '.join(cells)} |", flush=True)


def measure_size(
    options: argparse.Namespace, checkpoint: Path, component: str, name: str
) -> Budget:
    command = [sys.executable, __file__, "--child", str(checkpoint), "--components", component]
    command += ["--quantizers", name, "--pairs", str(options.pairs), "--widths"]
    command += map(str, options.widths)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Budget(**json.loads(output.splitlines()[-1]))


SECTIONS = {"models": models, "blocks": blocks, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quantizers", nargs="+", default=["rtn", "gptq", "awq"])
    parser.add_argument("--widths", nargs="+", type=int, default=[2, 3, 4, 5, 6, 8])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--models", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--config", type=Path, default=CONFIGS / BLIP2, help="for memory")
    parser.add_argument("--components", nargs="+", default=["vit", "qformer", "llm"])
    parser.add_argument("--blocks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    for name in options.sections:
        print(f"\n### {name}\n")
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
