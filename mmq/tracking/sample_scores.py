"""Scores of single samples, read from the artifacts of logged trials."""

import json
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mmq.system import checksums
from mmq.system.sealed import Unusable
from mmq.tracking.files import ALL_PREDICTIONS, RECORD, read_record
from mmq.tracking.queries import THREADS, Answers, LoggedTrial

log = logging.getLogger(__name__)


def read_samples(every: Sequence[Answers], score: str = "score", quiet: bool = False) -> None:
    """Fill in samples' values and pictures, where every trial of a question has them."""
    client = MlflowClient()
    wanted = [each for each in every if not any(trial.imported for trial in each.trials)]
    trials = {trial.run_id: trial for each in wanted for trial in each.trials}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:

        def read(run_id: str) -> Any:
            return _values(client, run_id, Path(folder), score)

        bar = tqdm(
            pool.map(read, trials),
            "reading samples",
            len(trials),
            unit="trial",
            disable=quiet or not trials,
        )
        found = dict(zip(trials, bar, strict=True))
        for each in wanted:
            values = {t.run_id: found[t.run_id] for t in each.trials}
            lengths = {None if v is None else len(v) for v in values.values()}
            if None in lengths or len(lengths) > 1:
                lacking = sum(v is None for v in values.values())
                each.notes.append(
                    f"uncertainty from samples is left out: {lacking} of {len(values)} trials "
                    f"have no values of samples"
                    if lacking
                    else "uncertainty from samples is left out: trials scored different samples"
                )
                continue
            each.samples = values
            each.pictures = _pictures(client, each.trials, Path(folder), lengths.pop() or 0)
            if each.pictures is None:
                each.notes.append("samples count as pictures of their own: pictures not known")


def _download(client: MlflowClient, run_id: str, name: str, folder: Path) -> Path | None:
    """A downloaded artifact; None where the run has none."""
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
    """Names of the samples' pictures, from the first run that kept its predictions."""
    for trial in trials:
        for run_id in dict.fromkeys((trial.run_id, trial.recorded_by)):
            found = _predictions(client, run_id, folder)
            if found is not None and len(found) == count:
                return found
    return None


def _predictions(client: MlflowClient, run_id: str, folder: Path) -> Sequence[str] | None:
    """The picture of every prediction of a run; None where they are not known, or damaged."""
    path = _download(client, run_id, ALL_PREDICTIONS, folder)
    if path is None:
        return None
    sums = _download(client, run_id, checksums.NAME, folder)
    try:
        if sums is not None:  # runs of earlier versions have none
            known = checksums.expected(sums.parent, run_id)
            checksums.check_file(path, known[ALL_PREDICTIONS])
        return [str(each["image"]) for each in json.loads(path.read_bytes())]
    except (OSError, Unusable, ValueError, TypeError, LookupError, RecursionError) as problem:
        log.warning("%s of run %s is damaged (%s)", ALL_PREDICTIONS, run_id, problem)
        return None
