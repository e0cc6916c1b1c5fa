"""The next block's inputs, saved on disk while a component is quantized."""

import time
from contextlib import suppress
from pathlib import Path

from mmq.quantization.sequential import States
from mmq.system import sealed

SECONDS = 10.0  # of work after which they are worth saving


class Snapshot:
    """Lets a killed process resume without running completed blocks again; written atomically."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.safetensors"
        self._since = time.monotonic()

    def resume_(self, states: States, missing: int) -> int:
        """Load saved hidden states, if any; returns the number of the next block.

        missing: the first block that is not in the store; a later snapshot is of no use.
        """
        try:
            tensors, texts = sealed.read_tensors(self.path, self.path.stem)
        except FileNotFoundError:
            return 0
        except sealed.Unusable as problem:  # begin with the first block
            sealed.report(self.path, problem)
            return 0
        start = int(texts["block"])
        if start > missing:  # artifacts were removed meanwhile
            return 0
        for bits, calls in states.items():
            for k, call in enumerate(calls):
                call.hidden = tensors[f"{bits}/{k}"].to(call.hidden.device)
        return start

    def save(self, states: States, block: int) -> None:
        """Save the inputs of a block, if it took long to compute them."""
        if time.monotonic() - self._since < SECONDS:
            return
        tensors = {
            f"{bits}/{k}": call.hidden.cpu().contiguous()
            for bits, calls in states.items()
            for k, call in enumerate(calls)
        }
        sealed.write_tensors(self.path, tensors, self.path.stem, {"block": str(block)})
        self._since = time.monotonic()

    def remove(self) -> None:
        """Delete the snapshot: all blocks are done."""
        with suppress(IsADirectoryError, PermissionError):  # not ours, and harmless
            self.path.unlink(missing_ok=True)
