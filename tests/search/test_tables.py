"""Databases of another Optuna version or program, damaged ones, and foreign studies."""

import os
import sqlite3
from contextlib import closing

import optuna
import pytest
from click.testing import CliRunner
from mmq_search.status import status
from mmq_search.storage import Storage
from processes import process
from sqlalchemy import event
from sqlalchemy.engine import Engine
from test_study import SPACE, finish, open_study

from mmq.errors import InputError


def change(folder, statement):
    with closing(sqlite3.connect(folder / "studies.db")) as database, database:
        database.execute(statement)


@pytest.fixture
def looks(tmp_path, monkeypatch):
    """The messages with which opening the study and `mmq status` refuse."""
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))

    def look():
        texts = []
        for call in (
            lambda: open_study(tmp_path),
            lambda: CliRunner().invoke(status, ["s"], catch_exceptions=False),
        ):
            with pytest.raises(InputError) as caught:
                call()
            texts.append(str(caught.value))
        return texts

    return look


def test_tables_of_an_older_optuna_are_refused_with_the_command_that_helps(tmp_path, looks):
    open_study(tmp_path)
    change(tmp_path, "update alembic_version set version_num = 'v2.6.0.a'")
    change(tmp_path, "update version_info set library_version = '2.6.0'")
    for text in looks():
        assert "older (set up by Optuna 2.6.0)" in text
        assert f"`optuna storage upgrade --storage sqlite:///{tmp_path}/studies.db`" in text


def test_tables_of_a_newer_optuna_or_another_program_are_refused(tmp_path, looks):
    open_study(tmp_path)
    change(tmp_path, "update alembic_version set version_num = 'v99.0.0.a'")
    for text in looks():
        assert f"the installed Optuna {optuna.__version__} does not know" in text
        assert "pip install -U optuna" in text


@pytest.mark.parametrize("table", ["alembic_version", "version_info"])
def test_tables_without_a_version_are_refused_or_completed(tmp_path, table):
    finish(open_study(tmp_path), 1)
    change(tmp_path, f"delete from {table}")
    assert len(open_study(tmp_path).evaluated()) == 1


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE version_info", "CREATE TABLE alembic_", "INSERT INTO alembic_"]
)
def test_incomplete_tables_are_no_studies_to_status_and_completed_by_the_next_search(
    tmp_path, monkeypatch, statement
):
    """A process stops where another one looks at the database, or where it is killed."""
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))

    def stop_at(connection, cursor, text, *_):
        if " ".join(text.split()).startswith(statement):
            os._exit(9)

    def create():
        event.listen(Engine, "before_cursor_execute", stop_at)
        Storage(tmp_path)

    child = process(create)
    child.join()
    assert child.exitcode == 9
    before = (tmp_path / "studies.db").read_bytes()
    with pytest.raises(InputError, match="no studies in .*studies.db. Set MMQ_HOME"):
        CliRunner().invoke(status, [], catch_exceptions=False)
    assert (tmp_path / "studies.db").read_bytes() == before
    assert len(finish(open_study(tmp_path), 1)) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"this is not a database, and long enough to show it" * 90, "not a database"),
     (None, "damaged")],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_name(tmp_path, looks, content, words):
    finish(open_study(tmp_path), 2)
    path = tmp_path / "studies.db"
    path.write_bytes(content or path.read_bytes()[:20000])
    for text in looks():
        assert str(path) in text
        assert words in text


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    (tmp_path / "studies.db").mkdir()
    with pytest.raises(InputError, match="unable to open database file"):
        Storage(tmp_path)


def test_a_file_in_place_of_the_home_is_refused(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(InputError, match="home"):
        Storage(tmp_path / "home")


def test_status_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match="no studies in"):
        CliRunner().invoke(status, [], catch_exceptions=False)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("directions", "trials", "words"),
    [(["maximize", "minimize"], 0, "directions are maximize, minimize"),
     (["minimize"], 0, "directions are minimize"),
     (["minimize", "maximize"], 1, "has trials, but no eval spec")],
)  # fmt: skip
def test_a_study_that_mmq_did_not_make_is_refused_and_left_as_it_is(
    tmp_path, looks, directions, trials, words
):
    study = optuna.create_study(
        study_name="s", storage=Storage(tmp_path).optuna, directions=directions
    )
    for _ in range(trials):
        study.ask({"x": optuna.distributions.IntDistribution(0, 3)})
    for text in looks():
        assert words in text
    assert not study.user_attrs
    assert len(study.trials) == trials


def test_trials_that_mmq_did_not_make_are_reported_and_ignored(tmp_path, caplog):
    study = open_study(tmp_path)
    finish(study, 2)
    values = [4.0, 99.0]
    study.study.add_trial(optuna.trial.create_trial(values=values))
    study.study.add_trial(
        optuna.trial.create_trial(values=values, user_attrs={"allocation": ["vit", 3]})
    )
    again = open_study(tmp_path)
    assert "Ignoring trials 7, 8 of study s" in caplog.text
    assert len(again.points()) == 2
    assert len(finish(again, 3)) == 3


def test_running_trials_of_others_are_failed(tmp_path):
    study = open_study(tmp_path)
    distributions = {name: optuna.distributions.IntDistribution(0, 99) for name in SPACE.parts}
    study.study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=dict.fromkeys(SPACE.parts, 77), distributions=distributions,
        )
    )  # fmt: skip
    assert finish(study, 2) == ["vit=16 llm=16", "vit=4 llm=4"]


@pytest.mark.parametrize("value", [{"strange": 1}, None])
def test_bounds_of_a_newer_mmq_are_refused(tmp_path, monkeypatch, value):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))
    study = open_study(tmp_path)
    finish(study, 2)
    study.study.set_user_attr("request", {"n_trials": 3, "until": None, "budget": value})
    if value is None:
        output = CliRunner().invoke(status, ["s"], catch_exceptions=False).output
        assert "2 of 3 allocations evaluated" in output
        return
    with pytest.raises(InputError, match=".s. has bounds that .* does not know: strange"):
        CliRunner().invoke(status, ["s"], catch_exceptions=False)


@pytest.mark.parametrize(
    "statement",
    [
        "update study_user_attributes set value_json = '{'",
        "update trial_user_attributes set value_json = '[1'",
        'update trial_params set distribution_json = \'{"name": "Strange"}\'',
        "update trials set state = 'STRANGE'",
        "update trial_values set value_type = 'STRANGE'",
    ],
)
def test_damaged_rows_are_refused_by_the_databases_name(tmp_path, looks, statement):
    finish(open_study(tmp_path), 2)
    change(tmp_path, statement)
    for text in looks():
        assert f"{tmp_path}/studies.db" in text


def test_values_that_are_missing_leave_their_trials_out(tmp_path, caplog):
    finish(open_study(tmp_path), 2)
    change(tmp_path, "delete from trial_values where trial_id = 1 and objective = 1")
    assert open_study(tmp_path).points()[0].allocation == "vit=4 llm=4"
    assert "Ignoring trials 0 of study s" in caplog.text
