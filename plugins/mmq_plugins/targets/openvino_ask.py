"""Ask an exported model about a picture in OpenVINO: `python -m ...openvino_ask FOLDER`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from mmq.contracts.images import FileImage
from mmq.contracts.vlm import AnswerFormat, Request
from mmq.errors import InputError
from mmq_plugins.targets.openvino_engine import opened

QUESTION = "What is in the picture?"


def main() -> None:
    """Print the answer, or how well a text matches the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--ask", default=QUESTION, help="a question, or the text to match")
    parser.add_argument("--fast", action="store_true", help="use the fastest precision")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as PyTorch uses")
    arguments = parser.parse_args()
    try:
        _answer(arguments)
    except InputError as error:
        sys.exit(f"Error: {error}")


def _answer(arguments: argparse.Namespace) -> None:
    image = FileImage(arguments.image)
    with opened(arguments.folder, not arguments.fast, arguments.threads) as model:
        if model.family.matches:
            pair = np.zeros((1, 2), dtype=np.int64)
            (logit,) = model.match([image], [arguments.ask], pair, 1, lambda items, _: items)
            sys.stdout.write(f"{logit:.3f}\n")
            return
        protocol = model.protocol(AnswerFormat.FREE)
        request = Request((image,), protocol.prompt(arguments.ask), str(arguments.image))
        (answer,) = model.generate([request], protocol.config, lambda items, _: items)
    sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main()
