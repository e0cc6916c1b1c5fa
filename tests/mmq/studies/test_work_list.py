"""Units of work: each is done once, whichever process dies."""

import multiprocessing
import os
import time

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mmq.errors import InputError, TakenOver
from mmq.studies import work_list
from mmq.studies.work_list import WorkList
from mmq.studies.work_tables import METADATA, WORK, WORKERS, planned_studies, present_workers
from mmq.system.database import VARIABLE, Database
from mmq.system.retries import StorageError

UNITS = [f"unit {k}" for k in range(6)]


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mysql", marks=pytest.mark.cluster)])
def open_list(request, tmp_path, monkeypatch):
    """Opens a study's work list, in each database."""
    servers = {"postgresql": "server", "mysql": "mysql_server"}
    if request.param in servers:
        monkeypatch.setenv(VARIABLE, request.getfixturevalue(servers[request.param]).url)

    def open_list(study=tmp_path.name):
        return WorkList(Database(tmp_path), study)

    return open_list


def test_a_table_that_another_process_creates_at_the_same_moment_is_used(open_list, tmp_path):
    other = Database(tmp_path).engine

    def create_first(connection, cursor, statement, *_):
        words = statement.split()
        if words[:2] == ["CREATE", "TABLE"] and connection.engine is not other:
            METADATA.create_all(other, tables=[t for t in (WORK, WORKERS) if t.name in words])

    event.listen(Engine, "before_cursor_execute", create_first)
    try:
        units = open_list()
    finally:
        event.remove(Engine, "before_cursor_execute", create_first)
    units.offer(UNITS)
    assert units.claim(UNITS[0])


def test_units_are_claimed_in_order_once_and_done(open_list):
    first, second = open_list(), open_list()
    second.me = "elsewhere:1:1"
    first.offer(UNITS)
    first.offer(UNITS)
    with first.present(), second.present():
        assert [first.claim(UNITS[1]).unit, first.claim(UNITS[1])] == [UNITS[1], None]
        claims = second.claims(UNITS)
        assert [next(claims).unit for _ in range(2)] == [UNITS[0], UNITS[2]]
        assert first.claim(UNITS[2]) is None


def test_every_unit_is_done_once_by_processes_that_are_killed(open_list, tmp_path):
    """Workers append what they do to a file and die in the middle, or after their work."""
    open_list().offer(UNITS)
    log = tmp_path / "log"

    def work(dies_before, dies_after):
        units = open_list()
        with units.present():
            for count, claim in enumerate(units.claims(UNITS)):
                if count == dies_before:
                    os.kill(os.getpid(), 9)
                if not log.exists() or claim.unit not in log.read_text():  # as records are
                    with log.open("a") as file:
                        file.write(f"{claim.unit}\n")
                if count == dies_after:
                    os.kill(os.getpid(), 9)
                units.complete(claim)

    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=work, args=each) for each in ((1, None), (None, 1))]
    for child in children:
        child.start()
        child.join()
        assert child.exitcode == -9
    last = fork.Process(target=work, args=(None, None))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert sorted(log.read_text().splitlines()) == UNITS
    assert open_list().count_done(UNITS) == len(UNITS)


def test_a_unit_of_a_process_that_died_counts_as_repeated(open_list, monkeypatch):
    lost, units = open_list(), open_list()
    lost.offer(UNITS[:1])
    lost.me = "elsewhere:1:1"  # it has claimed, and is not present
    assert not lost.claim(UNITS[0]).repeated
    with units.present():
        claim = next(units.claims(UNITS[:1]))
    assert claim.repeated
    with pytest.raises(TakenOver, match="another process released it"):
        lost.check(claim)


def test_a_silent_machine_is_taken_for_dead_after_a_minute_of_listening(open_list, monkeypatch):
    silent, units = open_list(), open_list()
    silent.me = "elsewhere:1:1"
    silent.offer(UNITS[:1])
    clock = [1000.0]
    monkeypatch.setattr(work_list.time, "monotonic", lambda: clock[0])
    with silent.present(), units.present():
        assert silent.claim(UNITS[0])
        assert units.claim(UNITS[0]) is None
        clock[0] += work_list.GRACE - 1
        assert units.claim(UNITS[0]) is None
        units.database.retries.outages += 1  # nobody could be heard: the minute starts again
        assert units.claim(UNITS[0]) is None
        clock[0] += work_list.GRACE
        assert units.claim(UNITS[0]).repeated


def test_a_heartbeat_renews_a_claim(open_list, monkeypatch):
    monkeypatch.setattr(work_list, "HEARTBEAT", 0.01)
    alive, units = open_list(), open_list()
    alive.me = "elsewhere:1:1"
    alive.offer(UNITS[:1])
    with alive.present():
        alive.claim(UNITS[0])
        units.claim(UNITS[0])
        beat, since = units._beats[alive.me]
        end = time.monotonic() + 300
        while units._beats[alive.me][0] == beat and time.monotonic() < end:
            units.claim(UNITS[0])
        assert units._beats[alive.me][0] > beat
        assert units._beats[alive.me][1] > since


def test_claims_of_a_process_are_released_when_it_leaves(open_list):
    units = open_list()
    units.offer(UNITS)

    def interrupted():
        with units.present():
            units.claim(UNITS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert open_list().claim(UNITS[0]).repeated


def test_failed_and_lost_results_are_offered_again(open_list):
    units = open_list()
    units.offer(UNITS[:2])
    units.complete(units.claim(UNITS[0]))
    units.fail(units.claim(UNITS[1]))
    assert list(units.claims(UNITS[:2])) == []
    units.offer(UNITS[:2])
    assert units.claim(UNITS[0]).repeated
    assert units.claim(UNITS[1]).repeated


def test_workers_are_listed_with_place_start_and_unit(open_list, tmp_path, monkeypatch):
    monkeypatch.setenv("MMQ_WORKER", "3")
    monkeypatch.setenv("MMQ_WORKER_PLACE", "node7 (SLURM job 5_3)")
    name = f"design-{tmp_path.name}"
    units = open_list(f"{name}@run")
    units.offer(UNITS)
    started = time.time()
    with units.present():
        units.claim(UNITS[0])
        (worker,) = present_workers(units.database, name)
        assert (worker.number, worker.place) == (3, "node7 (SLURM job 5_3)")
        assert worker.unit == UNITS[0]
        assert started <= worker.since <= time.time()
        done = planned_studies(units.database)[name]
        assert done == {"units": 6, "done": 0, "claimed": 1, "failed": 0}
        assert present_workers(units.database, "des") == []
    assert present_workers(units.database, name) == []


def test_a_database_that_is_unavailable_ends_the_work_with_a_sentence(tmp_path):
    units = WorkList(Database(tmp_path), "s")
    units.database.retries.max_outage = 0
    units.database.file.unlink()
    units.database.file.mkdir()
    units.database.engine.dispose()
    with pytest.raises(StorageError, match="unable to open database file"):
        units.count_done(UNITS)


def test_a_worker_whose_units_nobody_offered_ends_with_the_likely_causes(tmp_path):
    work = WorkList(Database(tmp_path), "s")
    with pytest.raises(InputError, match=r"has no work for 's'.*another database \(MMQ_STORAGE"):
        work.check_offered(UNITS)
    work.offer(UNITS[:1])
    work.check_offered(UNITS)
    assert work.count_open(UNITS) == 1
