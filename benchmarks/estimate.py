"""Hours, memory and disk of a search on a GPU, estimated from blocks that were measured on a CPU.

    python benchmarks/estimate.py

Prints the tables of docs/worked-example.md. Nothing here was run on a GPU: the measured seconds
of docs/performance.md are scaled by the rates below, and a result may be wrong by a factor of 3.
"""

import math
from dataclasses import dataclass

CORE = 150e9  # FLOP/s of the core that the blocks were measured on: LLaMA-7B's block in float32
FP32_SHARE = 0.25  # of a GPU's float32 peak: Gram matrices and solver
FP16_SHARE = 0.4  # of its 16-bit matrix peak: forwards
BANDWIDTH_SHARE = 0.5  # of its memory bandwidth: decoding
STEP = 0.030  # least seconds per decoding step: launches of Python and kernels
READ_RATE = 1e9  # bytes/s: quantized blocks from the store
OTHER = 5.0  # seconds per trial: scoring, intervals and logging
PAIRS, BATCH, SAMPLES, TRIALS = 128, 64, 500, 40
WIDTHS = (2, 3, 4, 5, 6, 8)
MEMORY_RATIO = 1.23  # peak to weights, measured with BLIP-2
STAGE_LIMIT = 10 * 2**30  # bytes: MMQ_CACHE_GIB
GRAM = 6.0  # bytes per entry of the widest Gram matrix: float32 and half of a float64 Hessian


@dataclass(frozen=True)
class Gpu:
    """Peaks of the data sheet: FLOP/s of float32 and of dense 16-bit matrices, bytes/s, GiB."""

    name: str
    fp32: float
    fp16: float
    bandwidth: float
    memory: int


@dataclass(frozen=True)
class Block:
    """A measured block: CPU seconds of one pair's read, and of a solve at six widths."""

    weights: float  # of one block
    inputs: int  # of its widest layer
    tokens: int  # of a pair
    read: float
    solve: float


@dataclass(frozen=True)
class Part:
    """A component. block: the measured one, scaled to its size where it is another."""

    weights: float
    inputs: int  # of its widest layer
    tokens: int  # of one picture
    block: Block

    def read(self) -> float:
        """CPU seconds to read all calibration pairs in all blocks."""
        work = self.weights * self.tokens / (self.block.weights * self.block.tokens)
        return PAIRS * self.block.read * work

    def solve(self) -> float:
        """CPU seconds to solve all blocks at six widths: weights times inputs."""
        work = self.weights * self.inputs / (self.block.weights * self.block.inputs)
        return self.block.solve * work

    def forward(self, gpu: Gpu) -> float:
        """GPU seconds of one picture."""
        return 2 * self.weights * self.tokens / (FP16_SHARE * gpu.fp16)


@dataclass(frozen=True)
class Model:
    """A model on a task. answer: tokens of an answer. features: cached bytes per picture."""

    name: str
    parameters: float
    parts: dict[str, Part]
    answer: int
    beams: int
    features: float


GPUS = (
    Gpu("RTX 4090", 82.6e12, 165e12, 1.01e12, 24),
    Gpu("A100 80 GB", 19.5e12, 312e12, 2.04e12, 80),
    Gpu("H100 SXM", 67e12, 989e12, 3.35e12, 80),
)
VIT_G = Block(25.23e6, 6144, 257, 2.61 / 16, 13.0)
QFORMER = Block(8.75e6, 3072, 32, 0.24 / 16, 4.4)
CLIP = Block(12.58e6, 4096, 577, 3.74 / 16, 8.3)
OPT = Block(78.64e6, 10240, 48, 1.62 / 16, 65.6)
LLAMA = Block(202.4e6, 11008, 608, 4.92 / 2, 170.5)
MODELS = (
    Model("BLIP-2 OPT-2.7B, captions", 3.745e9, {
        "vit": Part(984.0e6, 6144, 257, VIT_G),
        "qformer": Part(105.0e6, 3072, 32, QFORMER),
        "llm": Part(2.517e9, 10240, 48, OPT)}, 12, 5, 2 * (257 * 1408 + 32 * 2560)),
    Model("LLaVA-1.5-7B, questions", 7.063e9, {
        "vit": Part(302.0e6, 4096, 577, CLIP),
        "llm": Part(6.476e9, 11008, 608, LLAMA)}, 3, 1, 2 * 576 * (1024 + 4096)),
    Model("Qwen3-VL-8B, questions", 8.767e9, {
        "vit": Part(411.1e6, 4304, 3072, CLIP),
        "llm": Part(6.946e9, 12288, 800, LLAMA)}, 3, 1, 0),
)  # fmt: skip


def quantize_seconds(model: Model, gpu: Gpu) -> float:
    """GPU seconds of gptq at all widths."""
    seconds = sum(part.read() + part.solve() for part in model.parts.values())
    return seconds * CORE / (FP32_SHARE * gpu.fp32)


def trial_seconds(model: Model, gpu: Gpu, cached: bool) -> float:
    """GPU seconds of one trial; cached: vision features exist already."""
    llm = model.parts["llm"]
    upstream = [part for name, part in model.parts.items() if name != "llm"]
    vision = 0.0 if cached and model.features else sum(part.forward(gpu) for part in upstream)
    step = max(STEP, 2 * llm.weights / (BANDWIDTH_SHARE * gpu.bandwidth))
    steps = math.ceil(SAMPLES / BATCH) * model.answer
    codes = sum(part.weights for part in model.parts.values()) * 4 / 8
    prefill = llm.forward(gpu) * model.beams
    return SAMPLES * (vision + prefill) + steps * step + codes / READ_RATE + OTHER


def time_table() -> str:
    """Minutes to quantize, seconds of a trial, and hours of a search, by model and GPU."""
    lines = ["| model | GPU | quantize, min | trial, s (features cached) | search of 40, h |",
             "|---|---|---:|---:|---:|"]  # fmt: skip
    for model in MODELS:
        for gpu in GPUS:
            first, cached = (trial_seconds(model, gpu, each) for each in (False, True))
            quantize = quantize_seconds(model, gpu)
            new = len(WIDTHS) + 1  # trials with a vision width that no earlier one had
            total = quantize + new * first + (TRIALS - new) * cached
            lines.append(
                f"| {model.name} | {gpu.name} | {quantize / 60:.1f} | {first:.0f} ({cached:.0f}) "
                f"| {total / 3600:.1f} |"
            )
    return "\n".join(lines)


def space_table() -> str:
    """GiB of GPU memory and of disk, by model."""
    lines = ["| model | GPU memory | quantized blocks | original weights | features | disk |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for model in MODELS:
        weights = sum(part.weights for part in model.parts.values())
        widest = max(part.inputs for part in model.parts.values())
        memory = (2 * model.parameters * MEMORY_RATIO + GRAM * widest**2) / 2**30
        store = weights * sum(WIDTHS) / 8 / 2**30
        original = 2 * weights / 2**30
        features = min(STAGE_LIMIT, model.features * SAMPLES * (len(WIDTHS) + 1)) / 2**30
        lines.append(
            f"| {model.name} | {memory:.0f} | {store:.1f} | {original:.1f} | {features:.1f} "
            f"| {store + original + features:.0f} |"
        )
    return "\n".join(lines)


def core_table() -> str:
    """Hours of gptq on one core, by component."""
    lines = ["| model | component | read, h | solve, h |", "|---|---|---:|---:|"]
    for model in MODELS:
        for name, part in model.parts.items():
            lines.append(
                f"| {model.name.split(',')[0]} | {name} | {part.read() / 3600:.2f} "
                f"| {part.solve() / 3600:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(core_table(), time_table(), space_table(), sep="\n\n")
