"""Results in the tracking store: found, read, linked to."""

from collections.abc import Iterator, Sequence
from typing import Any

from mlflow import MlflowClient

from mmq.errors import InputError

PAGE = 1000


def all_runs(client: MlflowClient, experiment_ids: Sequence[str], query: str) -> Iterator[Any]:
    """Every run that a filter finds, page by page."""
    token = None
    while True:
        page = client.search_runs(list(experiment_ids), query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def quoted(name: str) -> str:
    """A name that may stand in a filter; InputError where it holds a quote."""
    if "'" in name:
        raise InputError(f"{name!r} holds a quote, which no filter of MLflow can ask for")
    return name
