"""Progress bars over samples."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from mmq.contracts.vlm import Progress
from mmq.system.progress import progress_bar


def sample_progress(label: str = "", quiet: bool = False) -> Progress:
    """A `Progress` that shows samples per second and the time left. label: before each text."""

    def progress(batches: Iterable[Any], description: str) -> Iterator[Any]:
        batches = list(batches)
        sizes = [len(batch) if isinstance(batch, Sized) else 1 for batch in batches]
        text = f"{label}{description}"
        with progress_bar(
            total=sum(sizes), desc=text, unit="sample", leave=False, quiet=quiet
        ) as bar:
            for batch, size in zip(batches, sizes, strict=True):
                yield batch
                bar.update(size)

    return progress
