"""vLLM in its own environment, whose packages clash with mmq's; it imports nothing of mmq.

    python vllm_worker.py --kernels         print what weights the installed vLLM runs here
    python vllm_worker.py FOLDER OPTIONS    load a model and answer until standard input ends

OPTIONS are arguments of `vllm.LLM` in JSON. Each line in is a JSON object: prompts with base64
pictures, and sampling parameters. Each line out is one too: texts, or an error.
"""

import base64
import io
import json
import os
import sys
from typing import Any

VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; all of the machine's memory is taken otherwise
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding fails on machines that hide their topology
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no process outlives this one
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
SHAPE = (4096, 4096)  # shape of the weight for which kernels are queried
GROUP_SIZES = (0, 16, 32, 64, 128, 256)  # 0 is one group per row


def kernels() -> dict[str, Any]:
    """Version, and group sizes by width that packed weights have kernels for on this machine."""
    import torch
    import vllm
    from vllm.model_executor.kernels.linear import choose_mp_linear_kernel
    from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import (
        MPLinearLayerConfig,
    )
    from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
        compressed_tensors_wNa16 as packed,
    )

    facts: dict[str, Any] = {"version": vllm.__version__}
    for kind, types in (
        ("symmetric", packed.WNA16_SUPPORTED_TYPES_MAP),
        ("asymmetric", packed.WNA16_ZP_SUPPORTED_TYPES_MAP),
    ):
        sizes: dict[int, list[int]] = {}
        for bits, dtype in types.items():
            for size in GROUP_SIZES:
                config = MPLinearLayerConfig(
                    SHAPE, SHAPE, dtype, torch.float16, size or -1, kind == "asymmetric"
                )
                try:
                    choose_mp_linear_kernel(config)
                except ValueError:  # none implements it
                    continue
                sizes.setdefault(bits, []).append(size)
        facts[kind] = sizes
    return facts


def generate(model: Any, body: dict[str, Any]) -> list[str]:
    """One text per request, greedily."""
    from PIL import Image
    from vllm import SamplingParams

    requests = []
    for request in body["requests"]:
        images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in request["images"]]
        prompt = {"prompt": request["prompt"]}
        requests.append(prompt | ({"multi_modal_data": {"image": images}} if images else {}))
    sampling = SamplingParams(temperature=0, **body["sampling"])
    return [
        output.outputs[0].text for output in model.generate(requests, sampling, use_tqdm=False)
    ]


def main() -> None:
    """Print the kernels, or answer until standard input ends."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM and its libraries print
    sys.path.pop(0)  # this folder: its compressed_tensors.py is not the package

    def reply(value: Any) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    if sys.argv[1] == "--kernels":
        reply(kernels())
        return
    from vllm import LLM

    model = LLM(sys.argv[1], **json.loads(sys.argv[2]))
    reply({"ready": True})
    for line in sys.stdin:
        try:
            reply({"texts": generate(model, json.loads(line))})
        except Exception as error:  # the other process raises it
            reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of vLLM do not end by themselves
