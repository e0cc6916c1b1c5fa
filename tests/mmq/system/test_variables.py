"""The environment is read while other threads change it."""

import os

import pytest

from mmq.system.variables import variables


def test_all_variables_are_returned(monkeypatch):
    monkeypatch.setenv("MMQ_TEST_VARIABLE", "1")
    assert variables() == dict(os.environ)


def test_a_variable_that_is_removed_meanwhile_is_left_out(monkeypatch):
    monkeypatch.setenv("MMQ_TEST_VARIABLE", "1")

    class Removing(dict):
        def get(self, name, default=None):
            return default if name == "MMQ_TEST_VARIABLE" else super().get(name, default)

        def __getitem__(self, name):
            if name == "MMQ_TEST_VARIABLE":
                raise KeyError(name)
            return super().__getitem__(name)

    monkeypatch.setattr(os, "environ", Removing(os.environ))
    with pytest.raises(KeyError):
        os.environ["MMQ_TEST_VARIABLE"]
    assert "MMQ_TEST_VARIABLE" not in variables()
