"""Peak memory of exporting the full-size BLIP-2: one source block, however large the model.

    python benchmarks/export_memory.py [--config FILE] [--bits vit=4,llm=4] [--most 1.0]
        [--targets torch compressed-tensors:vllm] [--llava-block]

Writes a checkpoint of the real configuration with random bfloat16 weights (7.5 GB for BLIP-2 with
OPT 2.7B, in a temporary folder). For each target, a fresh process quantizes it with rtn, block by
block from the files, writes it, and reads every weight back (the engine is not asked). Prints the
peak resident memory beyond that of Python and its packages, in GiB; fails above the largest source
block plus `--most` GiB. The home and the exports lie beside the checkpoint: 20 GB in all.
--llava-block exports a LLaVA-1.5-7B of one block instead, in float16.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import DEFAULT, ROOT, peak, write_checkpoint_apart

GIB = 2**30
CONFIGS = ROOT / "tests" / "data" / "configs"
QUANTIZER = {"group_size": "128", "symmetric": "true"}


def write_llava_block(folder: Path) -> int:
    """A LLaVA with one language block of LLaVA-1.5-7B; returns the bytes of its weights."""
    from wide_llava import llava_config, write_llava

    return write_llava(folder, llava_config(4096, 11008, blocks=1, context=512))


def apart(function: str, *arguments: str) -> int:
    """What a function here returns, in another process: a child's peak starts at its parent's."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        f"import export_memory; print(export_memory.{function}(*map(Path, sys.argv[2:])))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(output.split()[-1])


def largest_block(session: Any) -> int:
    """Bytes of the largest block's layers in the source."""
    sizes: dict[tuple[str, int], int] = {}
    for name, component in session.plan.source.skeleton.components.items():
        for layer in component.layers:
            rows, columns = layer.shape
            key = name, layer.block
            sizes[key] = sizes.get(key, 0) + 2 * rows * columns
    return max(sizes.values())


def export(model: str, target: str, bits: str, out: str) -> dict[str, float]:
    """Export in this process, and measure it."""
    from mmq.allocation.allocation import BitAllocation
    from mmq.config import EvalOptions
    from mmq.export.run import Written, export_model
    from mmq.export.session import ExportSession
    from mmq.export.targets import build_target
    from mmq.export.verify import Proof, prove_bytes, prove_weights
    from mmq.prepare import prepare

    allocation = BitAllocation.parse(bits)
    config = json.loads((Path(model) / "config.json").read_text())
    options = EvalOptions(
        model=model,
        task="vqa",
        limit="4",
        quantizer="rtn",
        dtype=config.get("dtype") or config["torch_dtype"],
    )
    start = peak()
    prepared = prepare(options, QUANTIZER, lambda parts: [allocation.over(parts)])
    own = {"precision": "fast"} if target == "openvino" else {}  # exact is for float32
    session = ExportSession.of(prepared, allocation, target, build_target(target, own))
    planned, began = peak(), time.perf_counter()
    layers = session.layers()
    quantized, ended = peak(), time.perf_counter()

    def prove(written: Written) -> Proof:
        weights = prove_weights(session.plan, layers, written.folder, written.report)
        weighed = prove_bytes(session.plan, written.folder)
        return Proof(weights, weighed, None, "the engine is not asked")

    export_model(session.plan, layers, Path(out), prove)
    return {
        "packages": start / GIB,
        "planned": (planned - start) / GIB,
        "quantized": (quantized - start) / GIB,
        "exported": (peak() - start) / GIB,
        "block": largest_block(session) / GIB,
        "seconds to quantize": ended - began,
        "seconds to export": time.perf_counter() - ended,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT)
    parser.add_argument("--bits", default="vit=4,llm=4")
    parser.add_argument("--most", type=float, default=1.0, help="GiB beyond one source block")
    parser.add_argument("--targets", nargs="+", default=["torch", "compressed-tensors:vllm"])
    parser.add_argument("--llava-block", action="store_true")
    parser.add_argument("--child", nargs=4, default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(export(*arguments.child)))
        return
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        size = (
            apart("write_llava_block", str(model))
            if arguments.llava_block
            else write_checkpoint_apart(arguments.config, str(model))
        )
        print(f"weights: {size / GIB:.2f} GiB")
        for target in arguments.targets:
            command = [sys.executable, __file__, "--child", str(model), target, arguments.bits]
            env = os.environ | {"MMQ_HOME": f"{folder}/home", "PYTHONPATH": _paths()}
            out = f"{folder}/out-{target.replace(':', '-')}"
            result = subprocess.run(
                [*command, out], check=True, stdout=subprocess.PIPE, text=True, env=env
            )
            facts = json.loads(result.stdout.splitlines()[-1])
            print(f"{target}: " + ", ".join(f"{k} {v:.2f}" for k, v in facts.items()), flush=True)
            if facts["exported"] > facts["block"] + arguments.most:
                failed.append(target)
    if failed:
        sys.exit(f"above one source block plus {arguments.most} GiB: {', '.join(failed)}")


def _paths() -> str:
    return os.pathsep.join([str(ROOT), str(ROOT / "plugins"), *sys.path])


if __name__ == "__main__":
    main()
