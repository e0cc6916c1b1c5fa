"""`mmq.search`: the search as a function; found by the entry point group `mmq.api`."""

from typing import Any

from mmq.arguments import read_arguments
from mmq.studies.study import Study
from mmq_search.command import SearchOptions
from mmq_search.run import run_search


def search(**arguments: Any) -> Study:
    """Search, and return the study; the arguments are those of `mmq.search`."""
    running = run_search(*read_arguments(SearchOptions, arguments))
    run = running.run
    return Study(running.results(), running.study.record, run.run_id, run.link(), run.run_link())
