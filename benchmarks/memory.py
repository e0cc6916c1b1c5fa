"""Peak memory of the full-size BLIP-2 (loaded, scored, quantized) relative to its weights.

    python benchmarks/memory.py [--config FILE] [--images N] [--bits 4] [--most 1.25]

Writes a checkpoint of the real configuration with random bfloat16 weights (7.5 GB for BLIP-2 with
OPT 2.7B, in a temporary folder), then in a fresh process loads it, captions four scenes with the
model family's protocol, runs a trial at 4 bits, and prints the peak resident memory after each
step relative to the weights; above `--most` it fails. The tokenizer is that of the embedded model.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "tests" / "data" / "configs" / "blip2-opt-2.7b.json"


def write_checkpoint(config_file: Path, folder: Path) -> int:
    """A sharded checkpoint with random weights; returns the bytes of its weights."""
    import torch
    from mmq_plugins.embedded.build import build_tokenizer
    from safetensors.torch import save_file
    from transformers import Blip2Processor, BlipImageProcessor

    from mmq.models.loading import read_config
    from mmq.models.skeleton import family_of

    config = read_config(str(config_file))
    with torch.device("meta"):
        module = family_of(config).skeleton(config)
    size = config.vision_config.image_size
    tokenizer = build_tokenizer(scenes=200)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    # the embedded tokenizer's image token; the real one lies at the end of the real vocabulary
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    config.torch_dtype = torch.bfloat16
    config.save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": size, "width": size})
    Blip2Processor(
        image_processor, tokenizer, num_query_tokens=config.num_query_tokens
    ).save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = held = number = 0

    def flush() -> None:
        nonlocal shard, held, number
        number += 1
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard, held = {}, 0

    for name, parameter in module.named_parameters():  # tied weights once
        weight = torch.empty(parameter.shape, dtype=torch.bfloat16)
        weight.normal_(0, 0.02, generator=generator)
        shard[name] = weight
        held += weight.nbytes
        total += weight.nbytes
        if held > 2**30:
            flush()
    flush()
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return total


def peak() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(folder: str, images: int, bits: int) -> None:
    """Load, score, quantize and score again; prints one line of JSON per step."""
    import os
    from pathlib import Path

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from mmq.allocation.allocation import BitAllocation
    from mmq.artifacts.store import Store
    from mmq.config import EvalOptions
    from mmq.prepare import prepare
    from mmq.record import TrialSpec
    from mmq.trial import run_trial

    def report(step: str, started: float) -> None:
        print(json.dumps([step, peak(), time.perf_counter() - started]), flush=True)

    options = EvalOptions(model=folder, task="captioning", limit=images, dtype="bfloat16")
    prepared = prepare(options, {}, lambda parts: [])
    evaluator: Any = prepared.evaluator
    print(json.dumps(f"{evaluator.num_beams} beams, at most {evaluator.max_new_tokens} tokens"))
    started = time.perf_counter()
    model = prepared.load()
    report("loaded", started)

    def trial(width: int) -> Any:
        allocation = BitAllocation.uniform(model.components, width)
        return run_trial(
            TrialSpec(prepared.eval_spec, allocation),
            model,
            prepared.artifacts(Store(Path(folder) / "store")),
            prepared.task,
        )

    for width in (16, bits):
        started = time.perf_counter()
        trial(width)
        report(f"{images} images captioned at {width} bits", started)
    prepared.task.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=DEFAULT)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--most", type=float, default=1.25, help="largest allowed ratio")
    parser.add_argument("--folder", type=Path, help="folder for the temporary checkpoint")
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.images, options.bits)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        command = [sys.executable, __file__, "--images", str(options.images)]
        weights = write_checkpoint_apart(options.config, folder)
        print(f"weights: {weights / 2**30:.2f} GiB\n")
        command += ["--bits", str(options.bits), "--child", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            print(json.loads(process.stdout.readline() or '""'), end="\n\n")
            print("| step | peak RSS, GiB | ratio to the weights | seconds |\n|---|---|---|---|")
            used = 0
            for line in process.stdout:
                step, used, seconds = json.loads(line)
                print(
                    f"| {step} | {used / 2**30:.2f} | {used / weights:.2f} | {seconds:.0f} |",
                    flush=True,
                )
        if process.returncode:
            sys.exit(process.returncode)
        if used > options.most * weights:
            sys.exit(f"{used / weights:.2f} times the weights; {options.most} are allowed")


def write_checkpoint_apart(config: Path, folder: str) -> int:
    """The checkpoint, written by a process of its own."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import memory; "
        "print(memory.write_checkpoint(Path(sys.argv[2]), Path(sys.argv[3])))"
    )
    arguments = [str(Path(__file__).parent), str(config), folder]
    output = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return int(output.split()[-1])


if __name__ == "__main__":
    main()
