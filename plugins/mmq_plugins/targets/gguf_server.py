"""llama.cpp's server with the two files of an exported folder: `python -m ...gguf_server FOLDER`.

It runs in a process of its own, because llama.cpp ends the process on a file that it cannot run.
It imports neither mmq nor PyTorch unless it asks a question itself.
"""

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

CONTEXT = 8192  # tokens at most: memory is reserved for all of them
READY = "listening on "


def parameters(folder: Path, threads: int, on_gpu: bool, mmap: bool = False) -> Any:
    """The parameters of xllamacpp for a folder: one request at a time, no cache between them.

    mmap: map the files instead of reading them. Weights that llama.cpp repacks for the processor
    are then in memory twice while the file's pages are cached.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "model.gguf")
    params.mmproj.path = str(folder / "mmproj.gguf")
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 999 if on_gpu else 0
    params.mmproj_use_gpu = on_gpu
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = False
    params.cache_ram_mib = 0
    modes = xllamacpp.llama_load_mode
    params.load_mode = modes.LLAMA_LOAD_MODE_MMAP if mmap else modes.LLAMA_LOAD_MODE_NONE
    return params


def main() -> None:
    """Serve until interrupted or until standard input closes; or ask one question and exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--mmap", action="store_true", help="map the files into memory")
    parser.add_argument("--ask", default="", help="ask this about --image and exit")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--until-eof", action="store_true", help="exit when stdin closes")
    arguments = parser.parse_args()
    if arguments.ask:
        _ask(arguments.folder, arguments.threads, arguments.image, arguments.ask)
        return
    import xllamacpp

    params = parameters(arguments.folder, arguments.threads, arguments.gpu, arguments.mmap)
    params.n_ctx = arguments.context
    if arguments.port:
        params.port = arguments.port
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:  # llama.cpp wrote the reason
        os._exit(1)
    sys.stdout.write(f"{READY}{server.listening_address}\n")
    sys.stdout.flush()
    if arguments.until_eof:
        sys.stdin.read()
    else:
        threading.Event().wait()
    os._exit(0)  # its threads do not end by themselves


def _ask(folder: Path, threads: int, image: Path | None, prompt: str) -> None:
    """Print the model's answer about a picture."""
    from mmq.contracts.images import FileImage
    from mmq.contracts.vlm import GenerationConfig, Request
    from mmq.errors import InputError
    from mmq_plugins.targets.gguf_engine import running

    images = () if image is None else (FileImage(image),)
    request = Request(images, prompt, str(image or prompt))
    try:
        with running(folder, "cpu", threads) as model:
            (answer,) = model.generate([request], GenerationConfig(256), lambda items, text: items)
    except InputError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main()
