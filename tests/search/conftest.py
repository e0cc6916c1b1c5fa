"""Databases of studies."""

import pytest
from postgres import postgres

from mmq.system.database import VARIABLE


@pytest.fixture(scope="session")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, monkeypatch):
    """Either database; a process started by the test finds the same."""
    if request.param == "postgresql":
        monkeypatch.setenv(VARIABLE, request.getfixturevalue("server").url)
    return request.param
