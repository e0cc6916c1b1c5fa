"""Databases of studies."""

import pytest

from mmq.system.database import VARIABLE


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mysql", marks=pytest.mark.cluster)])
def database(request, monkeypatch):
    """Each database; a process started by the test finds the same."""
    servers = {"postgresql": "server", "mysql": "mysql_server"}
    if request.param in servers:
        monkeypatch.setenv(VARIABLE, request.getfixturevalue(servers[request.param]).url)
    return request.param
