"""Scores per sample, read from the artifacts of logged trials."""

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.system import checksums
from mmq.system.progress import progress_bar
from mmq.system.sealed import Unusable
from mmq.tracking.files import ALL_PREDICTIONS, RECORD, read_record
from mmq.tracking.queries import THREADS, StudyTrials

log = logging.getLogger(__name__)


def read_samples(groups: Sequence[StudyTrials], score: str = "score", quiet: bool = False) -> None:
    """Read the samples' scores and images, for groups in which every trial has them."""
    client = MlflowClient()
    own = [group for group in groups if not any(trial.imported for trial in group.trials)]
    trials = {trial.run_id: trial for group in own for trial in group.trials}
    metrics = {group.task or score for group in own}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:

        def read(run_id: str) -> Mapping[str, Sequence[float]]:
            return _values(client, run_id, Path(folder), metrics)

        bar = progress_bar(
            pool.map(read, trials),
            desc="reading samples",
            total=len(trials),
            unit="trial",
            quiet=quiet or not trials,
        )
        scores = dict(zip(trials, bar, strict=True))
        for group in own:
            if score == "score" and group.is_joint:
                continue  # of a combined score, each task has its own
            values = {t.run_id: scores[t.run_id].get(group.task or score) for t in group.trials}
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
            group.samples = {k: v for k, v in values.items() if v is not None}
            group.pictures = _pictures(client, group, Path(folder), lengths.pop() or 0)
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


def _values(
    client: MlflowClient, run_id: str, folder: Path, metrics: Iterable[str]
) -> Mapping[str, Sequence[float]]:
    """The values per sample of those of these metrics, or tasks, that a run's record has."""
    path = _download(client, run_id, RECORD, folder)
    if path is None:
        return {}
    try:
        record = read_record(path, run_id)
    except (FileNotFoundError, Unusable) as problem:
        log.warning("The record of run %s cannot be used (%s): left out", run_id, problem)
        return {}
    names = {name: record.primary if name == "score" else name for name in metrics}
    return {k: record.per_sample[name] for k, name in names.items() if name in record.per_sample}


def _pictures(
    client: MlflowClient, group: StudyTrials, folder: Path, count: int
) -> Sequence[str] | None:
    """Names of the samples' images, from the first run that has its predictions."""
    for trial in group.trials:
        for run_id in dict.fromkeys((trial.run_id, trial.recorded_by)):
            for source in _task_runs(client, run_id, group.task) if group.task else [run_id]:
                images = _predictions(client, source, folder)
                if images is not None and len(images) == count:
                    return images
    return None


def _task_runs(client: MlflowClient, run_id: str, task: str) -> list[str]:
    """The runs that may have the predictions of one of several tasks."""
    experiment = client.get_run(run_id).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`mmq.task` = '{task}'"
    runs = client.search_runs([experiment], query)
    names = [(run.info.run_id, run.data.tags.get("mmq.recorded_by", "")) for run in runs]
    return [name for pair in names for name in pair if name]


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
