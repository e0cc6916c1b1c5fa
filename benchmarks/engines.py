"""What a quantized model costs in each installed engine, beside 16 bits.

    python benchmarks/engines.py [--targets gguf,openvino] [--bits 4] [--group-size 32]
                                 [--blocks 6] [--width 4096] [--repeats 5] [--threads 1]
                                 [--most-memory 0.35] [--least-speed 1.8]

A LLaVA of real width with a few blocks of random weights is exported for every target whose engine
is installed, at 16 bits and at `--bits`. Both are open at once, each in a process of its own, and
take turns as in `mmq measure`: a small picture and a prompt of about 128 tokens, then 24 generated
tokens. Printed are medians with their spread, and ratios to 16 bits: absolute numbers are those of
this machine now, ratios hold on others. Fails if a ratio of peak memory is above --most-memory, or
one of tokens per second below --least-speed. At the default width, the 16-bit model is 2.3 GiB and
both take 3.5 GiB of memory; --repeats 3 takes three minutes per engine on an idle core.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from wide_llava import llava_config, write_llava

from mmq.contracts import registry
from mmq.contracts.target import ExportedLayer, Target, WeightSpec
from mmq.errors import InputError
from mmq.export.facts import write_facts
from mmq.export.measure import ExportedModel, Measurement, Workload, ratios, time_answers
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.targets import build_target, check_installed
from mmq.models.components import Layer
from mmq.models.skeleton import skeleton
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import round_to_nearest

PROMPT, TOKENS = "red green blue " * 24, 24
CONTEXT = 512  # tokens; engines reserve memory for all of them
MIB = 2**20
HEAD = ("engine", "target", "bits", "files MiB", "load s", "peak MiB", "first token s", "tokens/s")


def export(name: str, target: Target, source: Path, out: Path, spec: WeightSpec | None) -> None:
    """Write a model for a target; None: 16 bits. InputError if the target refuses the weights."""
    outline = skeleton(str(source))
    layers = outline.components["llm"].layers
    specs = {} if spec is None else {layer.name: spec for layer in layers}
    for layer in layers if spec else ():
        if reason := target.refusal(spec, layer.shape, "llm"):
            raise InputError(f"target: {name} refuses {spec}: {reason}")
    checkpoint = SourceCheckpoint.open(source, outline)
    dtype = "float32" if name == "openvino" else "float16"  # what its exact mode computes in
    export_source = checkpoint.as_source(outline, dtype, specs)
    out.mkdir()
    if spec is None:
        target.export_unquantized(export_source, out)
    else:
        target.export(export_source, quantized(checkpoint, layers, spec), out)
    write_facts(out, {"target": name, "dtype": dtype})


def quantized(
    checkpoint: SourceCheckpoint, layers: Sequence[Layer], spec: WeightSpec
) -> Iterator[ExportedLayer]:
    """The language model's layers, rounded to nearest, one at a time."""
    for layer in layers:
        weight = checkpoint.weight(layer)
        codes = round_to_nearest(weight, spec.bits, spec.group_size, MappingType.SYMMETRIC)
        yield ExportedLayer(layer.name, "llm", codes)


def options_of(target: str, threads: int) -> dict[str, str]:
    """Options that make engines comparable."""
    return {"context": str(CONTEXT), "threads": str(threads)} if target == "gguf" else {}


def measured(
    name: str, source: Path, folder: Path, spec: WeightSpec, workload: Workload
) -> tuple[Measurement, Measurement]:
    """Costs of the 16-bit model and of the quantized one."""
    options = options_of(name, workload.threads)
    target = build_target(name, options)
    check_installed(target)
    models = {}
    for label, kind in (("16", None), (str(spec.bits), spec)):
        export(name, target, source, folder / label, kind)
        models[label] = ExportedModel(folder / label, name, options)
    costs = time_answers(models, workload, quiet=True)
    return costs["16"], costs[str(spec.bits)]


def rows(name: str, bits: int, plain: Measurement, small: Measurement) -> list[Sequence[str]]:
    """The table's rows of one engine."""
    lines: list[Sequence[str]] = []
    for width, cost in ((16, plain), (bits, small)):
        peak = "" if cost.peak_bytes is None else f"{cost.peak_bytes / MIB:.0f}"
        lines.append((
            cost.engine.name, name, str(width), f"{cost.file_bytes / MIB:.0f}",
            f"{cost.load:.1f}", peak, str(cost.spread("first_token_seconds")),
            str(cost.spread("tokens_per_second")),
        ))  # fmt: skip
    ratio = ratios(small, plain)
    columns = ("file_bytes", "load_seconds", "peak_bytes", "first_token_seconds",
               "tokens_per_second")  # fmt: skip
    cells = [f"{ratio[key].median:.2f}" if key in ratio else "" for key in columns]
    return [*lines, (plain.engine.name, name, "ratio", *cells)]


def misses(
    name: str,
    plain: Measurement,
    small: Measurement,
    most_memory: float | None,
    least_speed: float | None,
) -> list[str]:
    """The ratios of an engine that miss their bounds."""
    ratio = ratios(small, plain)
    memory, speed = ratio.get("peak_bytes"), ratio.get("tokens_per_second")
    missed = []
    if most_memory is not None and (memory is None or memory.median > most_memory):
        missed.append(f"{name} takes {memory} of the memory, more than {most_memory}")
    if least_speed is not None and (speed is None or speed.median < least_speed):
        missed.append(f"{name} generates at {speed} of the speed, less than {least_speed}")
    return missed


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--targets", default="", help="all that are installed if empty")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most-memory", type=float, help="largest ratio of peak memory")
    parser.add_argument("--least-speed", type=float, help="smallest ratio of tokens per second")
    arguments = parser.parse_args()
    names = arguments.targets.split(",") if arguments.targets else []
    names = names or [plugin.name for plugin in registry.installed("target")]
    spec = WeightSpec(arguments.bits, arguments.group_size)
    workload = Workload(arguments.repeats, TOKENS, prompt=PROMPT, threads=arguments.threads)
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        inner = arguments.width * 11 // 4 // 256 * 256
        write_llava(source, llava_config(arguments.width, inner, arguments.blocks, CONTEXT))
        for name in names:
            folder = Path(scratch) / name.replace(":", "-")
            folder.mkdir()
            try:
                costs = measured(name, source, folder, spec, workload)
            except InputError as error:
                print(f"{name} is left out: {error}")
                continue
            for row in rows(name, arguments.bits, *costs):
                print(f"| {' | '.join(row)} |", flush=True)
            missed += misses(name, *costs, arguments.most_memory, arguments.least_speed)
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
