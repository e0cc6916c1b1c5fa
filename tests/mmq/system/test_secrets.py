"""Passwords appear in nothing that is printed, logged or written."""

import os
import subprocess
import sys

import pytest

from mmq.system import secrets
from mmq.system.secrets import hide_credentials, redact


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch):
    for name in (*secrets.URIS, *secrets.VARIABLES, secrets.USER, "MMQ_STORAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:pw@host:5000/#/a", "http://me:***@host:5000/#/a"),
        ("at http://me:p@ss@host, then", "at http://me:***@host, then"),
        ("postgresql://me:a/b@host/db", "postgresql://me:***@host/db"),
        ("mysql+pymysql://me:a%3Ab%25@host/db", "mysql+pymysql://me:***@host/db"),
        ("http://me:a:b@[::1]:5000/x", "http://me:***@[::1]:5000/x"),
        ("write it as mysql://USER:PASSWORD@HOST/x", "write it as mysql://USER:PASSWORD@HOST/x"),
        ("https://TOKEN@host/path", "https://***@host/path"),
        ("http://:pw@host", "http://***@host"),
        ("'http://a:b@c' and \"http://d:e@f\"", "'http://a:***@c' and \"http://d:***@f\""),
        ("http://a:b@c,http://d:e@f", "http://a:***@c,http://d:***@f"),
        ("https://host/x?a=1&token=abc&b=2", "https://host/x?a=1&token=***&b=2"),
        ("s3://bucket/x?X-Amz-Signature=abc", "s3://bucket/x?X-Amz-Signature=***"),
        ("http://host/users/me@home", "http://host/users/me@home"),
        ("http://host:50/#/models/m@best", "http://host:50/#/models/m@best"),
        ("models:/study@best", "models:/study@best"),
        ("mail me@host.org about a:b", "mail me@host.org about a:b"),
        ("http://[::1]:5000/#/experiments/1", "http://[::1]:5000/#/experiments/1"),
        ("a study called secret", "a study called secret"),
    ],
)
def test_addresses_are_shown_without_their_passwords(text, clean):
    assert redact(text) == clean


def test_a_password_is_hidden_outside_of_addresses_too(monkeypatch):
    monkeypatch.setenv("MMQ_STORAGE", "postgresql://me:hunt%40er2@host/db")
    assert redact("login with 'hunt@er2' failed; hunt%40er2") == "login with '***' failed; ***"


@pytest.mark.parametrize("password", ["a", "the", "mlflow", "me", "host", "postgres"])
def test_an_ordinary_word_as_password_is_not_redacted(monkeypatch, password):
    monkeypatch.setenv("MMQ_STORAGE", f"postgresql://me:{password}@host/db")
    text = f"the {password} ui of me at host: a message"
    assert redact(text) == text
    assert redact(f"x://me:{password}@host") == "x://me:***@host"


def test_only_whole_words_are_hidden(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "vision")
    assert redact("vision, television, visions") == "***, television, visions"


@pytest.mark.parametrize(
    ("uri", "left", "user", "password"),
    [
        ("http://me:pw@host:5000/p", "http://host:5000/p", "me", "pw"),
        ("https://m%40e:p%40%3A%2F%25@host", "https://host", "m@e", "p@:/%"),
        ("http://me:p@ss@[::1]:80", "http://[::1]:80", "me", "p@ss"),
        ("https://token@host", "https://host", "token", None),
        ("http://host", "http://host", None, None),
        ("postgresql://me:pw@host/db", "postgresql://me:pw@host/db", None, None),
        ("http://[bad", "http://[bad", None, None),
    ],
)
def test_credentials_of_a_server_leave_its_address(monkeypatch, uri, left, user, password):
    for name in (secrets.USER, secrets.PASSWORD):
        monkeypatch.setenv(name, "x")  # put back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    hide_credentials()
    environment = os.environ
    assert environment["MLFLOW_TRACKING_URI"] == left
    assert (environment.get(secrets.USER), environment.get(secrets.PASSWORD)) == (user, password)


PROGRAM = """
import logging, os, sys, warnings
from mmq.cli.main import main
module = sys.modules["mmq.cli.main"]
def fail(**options):
    print("print", os.environ["MMQ_STORAGE"])
    logging.getLogger("urllib3").warning("log http://me:s3cr3t@h")
    warnings.warn("warn s3cr3t.")
    raise RuntimeError("raised http://me:s3cr3t@h")
module.cli.main = fail
main([])
"""


def test_nothing_that_a_command_prints_has_a_password():
    env = os.environ | {
        "MLFLOW_TRACKING_URI": "http://me:s3cr3t@h:1",
        "MMQ_STORAGE": "postgresql://me:s3cr3t@h/db",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True
    )
    output = result.stdout + result.stderr
    for text in ("print postgresql://me:***@h/db", "log http://me:***@h", "warn ***.",
                 "RuntimeError: raised http://me:***@h"):  # fmt: skip
        assert text in output
    assert "s3cr3t" not in output
