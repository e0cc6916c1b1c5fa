"""Databases of studies."""

import pytest
from mariadb import mariadb
from postgres import postgres

from mmq.system.database import VARIABLE


@pytest.fixture(scope="session")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def mysql_server():
    with mariadb() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mysql", marks=pytest.mark.cluster)])
def database(request, monkeypatch):
    """Each database; a process started by the test finds the same."""
    servers = {"postgresql": "server", "mysql": "mysql_server"}
    if request.param in servers:
        monkeypatch.setenv(VARIABLE, request.getfixturevalue(servers[request.param]).url)
    return request.param
