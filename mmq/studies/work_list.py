"""Units of work that processes of any machine share through their database.

    work = WorkList(Database(home()), study)
    work.offer(units)                      # the command that plans the work
    with work.present():                   # each worker
        for claim in work.claims(units):
            ...                            # work.check(claim) before a result is saved
            work.complete(claim)

A unit is pending, claimed, done or failed. A claim is one conditional UPDATE, so no unit has two
owners and no lock is needed. While a process is present, a thread counts up its beat. A claim
whose owner's beat stands still for a minute, by the clock of the process that watches it, is
released; so is one whose owner is known to have ended. No two clocks are compared.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from mmq.errors import InputError, TakenOver
from mmq.studies.work_tables import (
    CLAIMED,
    DONE,
    FAILED,
    METADATA,
    PENDING,
    WORK,
    WORKERS,
    unit_key,
)
from mmq.system import worker
from mmq.system.database import GRACE, HEARTBEAT, Database
from mmq.system.process import is_gone, is_here, owner
from mmq.system.retries import StorageError, reason

log = logging.getLogger(__name__)
POLL = 0.5  # seconds between polls for released work


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit that this process works on. repeated: another process may have done it in part."""

    unit: str
    repeated: bool


def _create(database: Database, table: Table) -> None:
    """Create a table if it is missing, whichever other processes create it at this moment."""
    create = CreateTable(table, if_not_exists=True)
    try:
        database.run(lambda connection: connection.execute(create))
    except StorageError:  # PostgreSQL compares names first, and reports a conflict after that
        database.run(lambda connection: connection.execute(create))


class WorkList:
    """The units of a study, and the processes at work on it.

    study: a key that no other study in the database has.
    """

    def __init__(self, database: Database, study: str) -> None:
        self.database, self.study, self.me = database, study, owner()
        self._held: set[str] = set()  # units that this process has claimed
        self._beats: dict[str, tuple[int, float]] = {}  # last beat and its time by owner
        self._outages = 0
        for table in METADATA.sorted_tables:
            _create(database, table)

    # --- planning --------------------------------------------------------------------------------
    def offer(self, units: Sequence[str]) -> None:
        """Make units available, in this order; units that others are working on are unchanged.

        Units that were done or failed are done again: the caller lacks their results.
        """

        def write(connection: Connection) -> None:
            rows = connection.execute(select(WORK.c.unit, WORK.c.state).where(self._mine()))
            states = {row.unit: row.state for row in rows}
            new = [
                {"study": self.study, "unit": unit_key(unit), "name": unit, "position": position,
                 "state": PENDING, "owner": "", "attempts": 0}
                for position, unit in enumerate(units) if unit_key(unit) not in states
            ]  # fmt: skip
            if new:
                connection.execute(insert(WORK), new)
            for unit in units:
                if states.get(unit_key(unit)) in (DONE, FAILED):
                    self._move(connection, unit, states[unit_key(unit)], "", PENDING)

        try:
            self.database.run(write)
        except StorageError:  # another command offered the same units at this moment
            self.database.run(write)

    def count_done(self, units: Sequence[str]) -> int:
        """How many of these units are done."""
        return self._count(units, DONE)

    def count_open(self, units: Sequence[str]) -> int:
        """How many of these units are neither done nor failed."""
        return self._count(units, PENDING, CLAIMED)

    def check_offered(self, units: Sequence[str]) -> None:
        """InputError in a worker if none of the units was offered: it does other work."""
        if not self._count(units, PENDING, CLAIMED, DONE, FAILED):
            raise InputError(
                f"worker on {worker.place()}: {self.database.address} has no work for "
                f"{self.study!r}. The command that launched the worker uses another database "
                f"(MMQ_STORAGE, MMQ_HOME), or the two have different versions of mmq, plugins, "
                f"torch or transformers, or a different model or data. Without such a command, "
                f"there is no work to share."
            )

    def _count(self, units: Sequence[str], *states: str) -> int:
        query = select(WORK.c.unit).where(self._mine(), WORK.c.state.in_(states))
        keys = self.database.run(lambda connection: set(connection.scalars(query)))
        return sum(unit_key(unit) in keys for unit in units)

    def _mine(self) -> ColumnElement[bool]:
        return WORK.c.study == self.study

    # --- working ---------------------------------------------------------------------------------
    def claims(self, units: Sequence[str]) -> Iterator[Claim]:
        """Claim one unit after another, until all are done or failed, whoever does them.

        Each must be completed or failed before the next is requested.
        """
        while True:
            open_units, claim = self._claim({unit_key(unit): unit for unit in units})
            if claim is not None:
                yield claim
            elif not open_units:
                return
            else:
                time.sleep(POLL)

    def claim(self, unit: str) -> Claim | None:
        """Claim one unit; None if it is finished, or another process works on it."""
        return self._claim({unit_key(unit): unit})[1]

    def _claim(self, units: dict[str, str]) -> tuple[int, Claim | None]:
        """How many of the units are not finished, and the first that was free, now claimed."""

        def attempt(connection: Connection) -> tuple[int, Claim | None]:
            query = select(WORK).where(self._mine(), WORK.c.state.in_((PENDING, CLAIMED)))
            rows = [r for r in connection.execute(query.order_by(WORK.c.position))
                    if r.unit in units]  # fmt: skip
            stale = self._stale(connection, {row.owner for row in rows if row.owner})
            for row in rows:
                unit = units[row.unit]
                own = row.owner == self.me
                if own and unit not in self._held:  # the reply to an earlier attempt was lost
                    self._held.add(unit)
                    return len(rows), Claim(unit, row.attempts > 1)
                if own or (row.owner and row.owner not in stale):
                    continue
                if self._move(connection, unit, row.state, row.owner, CLAIMED, self.me):
                    self._held.add(unit)
                    return len(rows), Claim(unit, row.attempts > 0)
            return len(rows), None

        return self.database.run(attempt)

    def _stale(self, connection: Connection, owners: set[str]) -> set[str]:
        """The owners that no longer work."""
        if self.database.retries.outages != self._outages:  # nobody could count up meanwhile
            self._outages = self.database.retries.outages
            self._beats.clear()
        query = select(WORKERS.c.owner, WORKERS.c.beat).where(WORKERS.c.study == self.study)
        beats = {row.owner: row.beat for row in connection.execute(query)}
        stale, now = set(), time.monotonic()
        for process in owners - {self.me}:
            if process not in beats or is_gone(process):
                stale.add(process)
                continue
            beat, since = self._beats.get(process, (None, now))
            if beat != beats[process]:
                since = now
            self._beats[process] = (beats[process], since)
            if now - since >= GRACE and not is_here(process):
                stale.add(process)
        for process in stale:
            log.warning("The work of process %s is released: the process has ended", process)
        return stale

    def _move(
        self, connection: Connection, unit: str, state: str, holder: str, to: str, by: str = ""
    ) -> bool:
        """Change a unit's state unless another process has; returns whether it did."""
        attempts = WORK.c.attempts + int(to in (CLAIMED, PENDING))
        change = update(WORK).where(
            self._mine(),
            WORK.c.unit == unit_key(unit),
            WORK.c.state == state,
            WORK.c.owner == holder,
        )
        change = change.values(state=to, owner=by, attempts=attempts)
        return bool(connection.execute(change).rowcount)

    def check(self, claim: Claim) -> None:
        """TakenOver if another process has released the unit, as if this one were dead."""
        query = select(WORK.c.owner).where(self._mine(), WORK.c.unit == unit_key(claim.unit))
        if self.database.run(lambda connection: connection.scalar(query)) != self.me:
            self._held.discard(claim.unit)
            raise TakenOver(f"{claim.unit} had no heartbeat, and another process released it")

    def complete(self, claim: Claim) -> None:
        """Mark a unit as done; its result is saved."""
        self._end(claim.unit, DONE)

    def fail(self, claim: Claim) -> None:
        """Mark a unit as failed; the next command offers it again."""
        self._end(claim.unit, FAILED)

    def release(self, claim: Claim) -> None:
        """Release a unit, for any process to claim."""
        self._end(claim.unit, PENDING)

    def _end(self, unit: str, state: str) -> None:
        self.database.run(lambda c: self._move(c, unit, CLAIMED, self.me, state))
        self._held.discard(unit)

    # --- presence --------------------------------------------------------------------------------
    @contextmanager
    def present(self) -> Iterator[None]:
        """List this process as present; on exit, release its claims."""
        now = time.time()
        row = {"study": self.study, "owner": self.me, "number": worker.number(),
               "place": worker.place(), "since": now, "seen": now, "beat": 0}  # fmt: skip
        own = and_(WORKERS.c.study == self.study, WORKERS.c.owner == self.me)

        def enter(connection: Connection) -> None:
            listed = connection.scalars(
                select(WORKERS.c.owner).where(WORKERS.c.study == self.study)
            )
            ended = [process for process in listed if process == self.me or is_gone(process)]
            connection.execute(
                delete(WORKERS).where(WORKERS.c.study == self.study, WORKERS.c.owner.in_(ended))
            )
            connection.execute(insert(WORKERS).values(**row))

        self.database.run(enter)
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop, own), daemon=True)
        thread.start()
        try:
            with self.database.retries.short_after_interrupt():
                yield
        finally:
            stop.set()
            thread.join()
            self._leave(own)

    def _beat(self, stop: threading.Event, own: ColumnElement[bool]) -> None:
        failing = False
        while not stop.wait(HEARTBEAT):
            change = update(WORKERS).where(own).values(beat=WORKERS.c.beat + 1, seen=time.time())
            try:
                with self.database.retries.once():  # the next beat comes soon
                    self.database.run(lambda connection: connection.execute(change))  # noqa: B023
                failing = False
            except SQLAlchemyError as error:
                if not failing:
                    log.warning("No heartbeat was written: %s", reason(error))
                failing = True

    def _leave(self, own: ColumnElement[bool]) -> None:
        """Release this process's claims, and remove it from the list."""

        def leave(connection: Connection) -> None:
            for unit in self._held:
                self._move(connection, unit, CLAIMED, self.me, PENDING)
            connection.execute(delete(WORKERS).where(own))

        try:
            self.database.run(leave)
        except StorageError as error:
            log.warning("The next command releases what this process worked on: %s", error)
