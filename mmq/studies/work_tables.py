"""The tables of shared work in the database of a study, and what `mmq status` reads from them."""

from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    inspect,
    or_,
    select,
)

from mmq.system.database import Database
from mmq.system.hashing import digest
from mmq.system.process import is_gone

PENDING, CLAIMED, DONE, FAILED = "pending", "claimed", "done", "failed"
METADATA = MetaData()
WORK = Table(
    "mmq_work",
    METADATA,
    Column("study", String(160), primary_key=True),
    Column("unit", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("owner", String(255), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
)
WORKERS = Table(
    "mmq_workers",
    METADATA,
    Column("study", String(160), primary_key=True),
    Column("owner", String(255), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("place", Text, nullable=False),
    # by the worker's own clock, for display; MySQL's Float is up to an hour off
    Column("since", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("beat", Integer, nullable=False),
)


def unit_key(unit: str) -> str:
    """A unit in the table: names can be long."""
    return digest(unit)[:40]


@dataclass(frozen=True, slots=True)
class PresentWorker:
    """A process at work on a study. since, seen: by its clock, in seconds since the epoch."""

    owner: str
    number: int
    place: str
    since: float
    seen: float
    unit: str = ""  # what it works on, if the study has a work list

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended without signing off."""
        return is_gone(self.owner)


def present_workers(database: Database, study: str) -> list[PresentWorker]:
    """The processes at work on a study of this name, without those known to be gone."""

    def read(connection: Connection) -> list[PresentWorker]:
        names = or_(WORKERS.c.study == study, WORKERS.c.study.like(f"{study}@%"))
        units = {
            (row.study, row.owner): row.name
            for row in connection.execute(select(WORK).where(WORK.c.state == CLAIMED))
        }
        rows = connection.execute(select(WORKERS).where(names).order_by(WORKERS.c.number))
        return [
            PresentWorker(row.owner, row.number, row.place, row.since, row.seen,
                          units.get((row.study, row.owner), ""))
            for row in rows
        ]  # fmt: skip

    if not _has_tables(database):
        return []
    return [worker for worker in database.run(read) if not worker.is_gone]


def _has_tables(database: Database) -> bool:
    """Whether any study shared work: reading creates nothing."""
    if database.file is not None and not database.file.is_file():
        return False
    return database.run(lambda connection: inspect(connection).has_table(WORK.name))


def planned_studies(database: Database) -> dict[str, dict[str, int]]:
    """The studies with a work list, by name: how many units they have, and in which states."""

    def read(connection: Connection) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        query = select(WORK.c.study, WORK.c.state, func.count().label("units"))
        for row in connection.execute(query.group_by(WORK.c.study, WORK.c.state)):
            states = counts.setdefault(row.study.partition("@")[0], {})
            states[row.state] = states.get(row.state, 0) + row.units
        return {
            name: {"units": sum(states.values())}
            | {state: states.get(state, 0) for state in (DONE, CLAIMED, FAILED)}
            for name, states in counts.items()
        }

    return database.run(read) if _has_tables(database) else {}
