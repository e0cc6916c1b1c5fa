"""Scores per sample, read from the artifacts of logged trials."""

import json
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.system import checksums
from mmq.system.progress import progress_bar
from mmq.system.sealed import Unusable
from mmq.tracking.files import ALL_PREDICTIONS, RECORD, read_record
from mmq.tracking.queries import THREADS, LoggedTrial, StudyTrials

log = logging.getLogger(__name__)


def read_samples(groups: Sequence[StudyTrials], score: str = "score", quiet: bool = False) -> None:
    """Read the samples' scores and images, for groups in which every trial has them."""
    client = MlflowClient()
    own = [group for group in groups if not any(trial.imported for trial in group.trials)]
    trials = {trial.run_id: trial for group in own for trial in group.trials}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:

        def read(run_id: str) -> Any:
            return _values(client, run_id, Path(folder), score)

        bar = progress_bar(
            pool.map(read, trials),
            desc="reading samples",
            total=len(trials),
            unit="trial",
            quiet=quiet or not trials,
        )
        scores = dict(zip(trials, bar, strict=True))
        for group in own:
            values = {t.run_id: scores[t.run_id] for t in group.trials}
            lengths = {None if v is None else len(v) for v in values.values()}
            if None in lengths or len(lengths) > 1:
                lacking = sum(v is None for v in values.values())
                group.notes.append(
                    f"uncertainty from samples is left out: {lacking} of {len(values)} trials "
                    f"have no scores per sample"
                    if lacking
                    else "uncertainty from samples is left out: trials scored different samples"
                )
                continue
            group.samples = values
            group.pictures = _pictures(client, group.trials, Path(folder), lengths.pop() or 0)
            if group.pictures is None:
                group.notes.append(
                    "every sample counts as an image of its own: the images are unknown"
                )


def _download(client: MlflowClient, run_id: str, name: str, folder: Path) -> Path | None:
    """A downloaded artifact; None if the run does not have it."""
    own = folder / run_id
    own.mkdir(exist_ok=True)
    try:
        return Path(client.download_artifacts(run_id, name, str(own)))
    except (MlflowException, OSError):
        return None


def _values(client: MlflowClient, run_id: str, folder: Path, score: str) -> Sequence[float] | None:
    path = _download(client, run_id, RECORD, folder)
    if path is None:
        return None
    try:
        record = read_record(path, run_id)
    except (FileNotFoundError, Unusable) as problem:
        log.warning("The record of run %s cannot be used (%s): left out", run_id, problem)
        return None
    return record.sample_scores if score == "score" else record.per_sample.get(score)


def _pictures(
    client: MlflowClient, trials: Sequence[LoggedTrial], folder: Path, count: int
) -> Sequence[str] | None:
    """Names of the samples' images, from the first run that has its predictions."""
    for trial in trials:
        for run_id in dict.fromkeys((trial.run_id, trial.recorded_by)):
            images = _predictions(client, run_id, folder)
            if images is not None and len(images) == count:
                return images
    return None


def _predictions(client: MlflowClient, run_id: str, folder: Path) -> Sequence[str] | None:
    """The image of every prediction of a run; None if they are missing or damaged."""
    path = _download(client, run_id, ALL_PREDICTIONS, folder)
    if path is None:
        return None
    sums = _download(client, run_id, checksums.NAME, folder)
    try:
        if sums is not None:  # runs of earlier versions have none
            expected = checksums.expected(sums.parent, run_id)
            checksums.check_file(path, expected[ALL_PREDICTIONS])
        return [str(prediction["image"]) for prediction in json.loads(path.read_bytes())]
    except (OSError, Unusable, ValueError, TypeError, LookupError, RecursionError) as problem:
        log.warning("%s of run %s is damaged (%s)", ALL_PREDICTIONS, run_id, problem)
        return None
