"""A task of lmms-eval over parquet files on this disk, without network."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from mmq.data.parquet_images import open_parquet
from mmq.errors import InputError
from mmq.system.home import home
from mmq_plugins.datasets.split_files import (
    SHARD,
    WORDS,
    parquet_files,
    split_file,
    warn_of_missing_shards,
)
from mmq_plugins.lmms.benchmark import Benchmark, benchmark

BATCH = 1024  # rows of text in memory
TRAINING = "train"
_STAND_IN = (32, 32)  # pixels of the pictures that only count
log = logging.getLogger(__name__)


def files_of(root: Path, task: Benchmark, split: str) -> list[Path]:
    """The parquet files of a split: by its exact name, or else by what the name stands for."""
    folder = root / str(task.config.get("dataset_name") or "")
    base = folder if folder.is_dir() else root
    files = parquet_files(base)
    exact = [p for p in files if split in (SHARD.sub("", p.stem), p.parent.name)]
    word = WORDS.get(split, split)
    return exact or [p for p in files if split_file(base, p).split == word]


@dataclass(frozen=True)
class LocalTask:
    """A task of lmms-eval with the rows of one split. `task` is lmms-eval's own object."""

    benchmark: Benchmark
    split: str
    task: Any

    def rows(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each row without its pictures, and the number of pictures that it is shown with."""
        texts = self.task.dataset_no_image[self.split]
        for index, (row, cells) in enumerate(zip(texts, self._stand_ins(), strict=True)):
            yield row, self._count(index, {**row, **cells})

    def visuals(self, index: int) -> list[Image.Image]:
        """The pictures of a row as the task shows them. InputError for anything else."""
        try:
            with offline():
                visuals = list(self.task.doc_to_visual(self.task.dataset[self.split][index]) or ())
        except Exception as error:  # the code of a task can raise anything
            raise InputError(
                f"data: row {index} of {self.split}: lmms:{self.benchmark.name} cannot show its "
                f"pictures ({type(error).__name__}: {error})"
            ) from error
        other = next((v for v in visuals if not isinstance(v, Image.Image)), None)
        if other is not None:
            raise InputError(
                f"task: lmms:{self.benchmark.name} shows a {type(other).__name__} in row {index}, "
                f"and mmq supports pictures only"
            )
        return visuals

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The text that lmms-eval asks with: description, examples, and the task's prompt."""
        shots = int(self.benchmark.config.get("num_fewshot") or 0)
        return str(self.task.fewshot_context(deepcopy(dict(row)), shots))

    def answers(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The right answers of a row, or an empty text."""
        target = self.task.doc_to_target(deepcopy(dict(row)))
        return tuple(map(str, target)) if isinstance(target, list) and target else (str(target),)

    def _count(self, index: int, row: Mapping[str, Any]) -> int:
        """The pictures of a row, counted without decoding them where the task's code allows it."""
        try:
            with offline():
                visuals = self.task.doc_to_visual(row) or ()
            if all(isinstance(visual, Image.Image) for visual in visuals):
                return len(visuals)
        except Exception as error:
            log.debug("row %d: %s; its pictures are decoded", index, error)
        return len(self.visuals(index))

    def _stand_ins(self) -> Iterator[dict[str, Any]]:
        """Tiny pictures in place of each row's own, and None where a row has none."""
        data = self.task.dataset[self.split]
        columns = [n for n in data.column_names if n not in self._text_columns()]
        if not columns:
            yield from ({} for _ in range(len(data)))
            return
        tiny = Image.new("RGB", _STAND_IN)
        for table in data.select_columns(columns).with_format("arrow").iter(batch_size=BATCH):
            cells = {name: _cells(table.column(name), tiny) for name in columns}
            yield from ({n: cells[n][k] for n in columns} for k in range(table.num_rows))

    def _text_columns(self) -> set[str]:
        return set(self.task.dataset_no_image[self.split].column_names)


def _cells(column: Any, tiny: Image.Image) -> list[Any]:
    """A stand-in per cell of a column of pictures, or of lists of pictures."""
    from pyarrow import compute, types

    if types.is_list(column.type) or types.is_large_list(column.type):
        lengths = compute.list_value_length(column).to_pylist()
        return [None if length is None else [tiny] * length for length in lengths]
    return [tiny if valid else None for valid in column.is_valid().to_pylist()]


@lru_cache(maxsize=8)
def open_task(root: Path, name: str, split: str) -> LocalTask:
    """The task with the rows of a split of a folder; InputError if its code cannot read them."""
    task = benchmark(name)
    files = files_of(root, task, split)
    warn_of_missing_shards(files)
    config = {
        **{k: v for k, v in task.config.items() if k not in ("dataset_name", "dataset_kwargs")},
        "dataset_path": "parquet",
        "test_split": split,
        "validation_split": None,
        "training_split": None,
        "dataset_kwargs": {
            "data_files": {split: [str(path) for path in files]},
            "cache_dir": str(home() / "lmms-eval"),
        },
    }
    shots = task.config.get("fewshot_split")
    if shots and shots != split and (more := files_of(root, task, shots)):
        config["dataset_kwargs"]["data_files"][shots] = [str(path) for path in more]
    with offline(), _errors(task, root):
        config["dataset_kwargs"]["features"] = _features(files[0])
        return LocalTask(task, split, _configured(config))


def _features(path: Path) -> Any:
    """The kinds of a file's columns; pictures are recognized without the hub's metadata, too."""
    from datasets import Features
    from datasets import Image as Picture

    def kind(feature: Any) -> Any:
        if isinstance(feature, Mapping) and set(feature) == {"bytes", "path"}:
            return Picture()
        if hasattr(feature, "feature"):  # a list of pictures
            return type(feature)(kind(feature.feature))
        return feature

    features = Features.from_arrow_schema(open_parquet(path).schema_arrow)
    return Features({name: kind(given) for name, given in features.items()})


def _configured(config: dict[str, Any]) -> Any:
    """lmms-eval's own task object; its retries, which wait for a network, are left out."""
    from inspect import unwrap

    import lmms_eval.api.metrics  # noqa: F401  registers `mean` and the others
    from lmms_eval.api.task import ConfigurableTask

    class WithoutRetries(ConfigurableTask):  # type: ignore[misc]
        download = unwrap(ConfigurableTask.download)
        process_results = unwrap(ConfigurableTask.process_results)

    return WithoutRetries(config=deepcopy(config))  # it writes into its config


@contextmanager
def _errors(task: Benchmark, root: Path) -> Iterator[None]:
    """InputError with what was read for whatever the code of a task raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = re.sub(r"\s+", " ", str(error))[:300]
        raise InputError(
            f"data: lmms:{task.name} cannot read {str(root)!r} ({type(error).__name__}: {text}). "
            f"It reads the columns of {task.config.get('dataset_path')} on huggingface.co and may "
            f"download nothing; copy the parquet files of that data set."
        ) from error


@contextmanager
def offline() -> Iterator[None]:
    """Tasks that download other data than --data raise an error."""
    import datasets
    import huggingface_hub

    places: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
        if bars:
            datasets.enable_progress_bars()
