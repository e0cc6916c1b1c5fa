"""An IR in optimum-intel, in an environment of its own; it imports nothing of mmq.

    python optimum_worker.py FOLDER SETTINGS    load a model, answer until standard input ends

SETTINGS are OpenVINO's in JSON. Each line in is a JSON object: inputs as safetensors in base64,
and arguments of `generate`. Each line out is one too: token ids, or an error.
"""

import base64
import json
import os
import sys
from inspect import signature
from typing import Any


def generate(model: Any, body: dict[str, Any]) -> list[list[int]]:
    """Prompt and answer of each row, as token ids."""
    from safetensors.torch import load

    inputs = load(base64.b64decode(body["inputs"]))
    functions = (model.forward, model.prepare_inputs_for_generation)
    names = {name for function in functions for name in signature(function).parameters}
    known = {name: tensor for name, tensor in inputs.items() if name in names}
    tokens: list[list[int]] = model.generate(**known, **body["arguments"]).tolist()
    return tokens


def main() -> None:
    """Load the model, then answer until standard input ends."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    sys.path.pop(0)  # this folder: its modules are not those of other packages

    def reply(value: Any) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    from optimum.intel import OVModelForVisualCausalLM

    model = OVModelForVisualCausalLM.from_pretrained(
        sys.argv[1], device="CPU", ov_config=json.loads(sys.argv[2]), trust_remote_code=False
    )
    reply({"ready": True})
    for line in sys.stdin:
        try:
            reply({"tokens": generate(model, json.loads(line))})
        except Exception as error:  # the other process raises it
            reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
