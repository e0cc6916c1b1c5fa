"""The inputs of the block that is next, kept on disk while a component is quantized."""

import time
from contextlib import suppress
from pathlib import Path

from mmq.quantization.sequential import States
from mmq.system import sealed

SECONDS = 10.0  # of work after which they are worth keeping


class Snapshot:
    """Saves a killed process the way through blocks that are done; written whole or not at all."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.safetensors"
        self._since = time.monotonic()

    def resume_(self, states: States, missing: int) -> int:
        """Put back the hidden states that were kept, if any; the number of the next block.

        missing: the first block that is not in the store; what lies behind it is of no use.
        """
        try:
            kept, texts = sealed.read_tensors(self.path, self.path.stem)
        except FileNotFoundError:
            return 0
        except sealed.Unusable as problem:  # from the start
            sealed.report(self.path, problem)
            return 0
        start = int(texts["block"])
        if start > missing:  # artifacts were removed since
            return 0
        for bits, calls in states.items():
            for k, call in enumerate(calls):
                call.hidden = kept[f"{bits}/{k}"].to(call.hidden.device)
        return start

    def keep(self, states: States, block: int) -> None:
        """Keep what goes into a block, if it took long to get there."""
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
        """All blocks are done."""
        with suppress(IsADirectoryError, PermissionError):  # nothing of ours: it does no harm
            self.path.unlink(missing_ok=True)
