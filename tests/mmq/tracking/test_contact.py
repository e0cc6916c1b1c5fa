"""Servers that respond incorrectly, slowly or never are refused at once, with advice."""

import logging
import os

import mlflow
import pytest
from faulty_server import FaultyServer
from mlflow.exceptions import MlflowException
from requests import HTTPError, Response

from mmq.errors import InputError
from mmq.tracking import contact, refuses, unreachable
from mmq.tracking.connection import connect
from mmq.tracking.contact import ending_cleanly
from mmq.tracking.offline import LONG_TIMEOUT, RETRIES, SHORT_TIMEOUT, TIMEOUT, short_timeouts
from mmq.tracking.queries import find_trials


@pytest.fixture
def server(monkeypatch):
    made = []

    def make(fault):
        made.append(FaultyServer(fault))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made[0].uri)
        monkeypatch.setenv(RETRIES, "0")
        monkeypatch.setenv(TIMEOUT, "1" if fault == "hang" else "300")
        mlflow.set_tracking_uri(made[0].uri)
        return made[0]

    yield make
    mlflow.set_tracking_uri(None)
    for each in made:
        each.stop()


@pytest.mark.parametrize("call", [connect, find_trials])
@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("401", "MLFLOW_TRACKING_USERNAME"),
        ("403", "MLFLOW_TRACKING_USERNAME"),
        ("404", "There is no MLflow server at this address"),
        ("404 json", "Check that it runs"),
        ("html", "There is no MLflow server at this address"),
        ("500", "Check that it runs"),
        ("hang", f"more than 1 s with {TIMEOUT}"),
    ],
)
def test_a_wrong_server_is_refused_by_its_address(server, call, fault, hint):
    faulty = server(fault)
    with pytest.raises(InputError) as caught:
        call("e")
    assert faulty.uri in str(caught.value)
    assert hint in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert faulty.asked.wait(300)
    assert faulty.requests == 1


@pytest.mark.parametrize("uri", ["nonsense://a/b", "garbage", "file:///nowhere/mlruns", "http://"])
def test_an_invalid_address_is_refused(monkeypatch, tmp_path, uri):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RETRIES, "0")
    mlflow.set_tracking_uri(uri)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        connect("e")
    mlflow.set_tracking_uri(None)


def test_a_long_wait_is_announced(server, monkeypatch, caplog):
    faulty, announce = server("hang"), contact.log.warning

    def announce_and_respond(*message):
        announce(*message)
        faulty.over.set()

    monkeypatch.setenv(TIMEOUT, "300")
    monkeypatch.setattr(contact, "REPORT_AFTER", 0.05)
    monkeypatch.setattr(contact.log, "warning", announce_and_respond)
    with caplog.at_level(logging.WARNING), pytest.raises(InputError):
        connect("e")
    assert f"Waiting for the MLflow store {faulty.uri}" in caplog.text


def test_short_timeouts_shorten_the_default_and_not_the_users(monkeypatch):
    for before, within in (
        (None, SHORT_TIMEOUT),
        (LONG_TIMEOUT, SHORT_TIMEOUT),
        ("300", "300"),
        ("1", "1"),
    ):
        monkeypatch.delenv(TIMEOUT, raising=False)
        if before:
            monkeypatch.setenv(TIMEOUT, before)
        with short_timeouts():
            assert os.environ[TIMEOUT] == within
        assert os.environ.get(TIMEOUT) == before


@pytest.mark.parametrize(("status", "refused"), [(401, True), (403, True), (404, True),
                                                 (500, False), (503, False)])  # fmt: skip
def test_a_servers_response_to_a_file_counts_like_its_other_responses(status, refused):
    response = Response()
    response.status_code = status
    error = HTTPError("no", response=response)
    assert unreachable(error)
    assert refuses(error) == refused


def test_a_server_that_goes_away_ends_a_command_with_a_sentence():
    with pytest.raises(InputError, match="Completed trials are saved"), ending_cleanly():
        raise MlflowException("gone")
    ours = MlflowException.invalid_parameter_value("a mistake of ours")
    with pytest.raises(MlflowException, match="ours"), ending_cleanly():
        raise ours
