"""A study as an object: its front, its records and its selections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point, SizeAxis, pareto_front
from mmq.analysis.selection import Selection
from mmq.errors import InputError, unknown
from mmq.record import TrialRecord
from mmq.studies.front import Results, conclusion, description
from mmq.studies.front_tables import front_text

if TYPE_CHECKING:
    from mmq.tracking import StudyRun


@dataclass(frozen=True, slots=True)
class Study:
    """The evaluated trials of a study, read when they are needed.

    read: a trial's record by its allocation, None if it has none. url: of the study's charts in
    MLflow; run_url: of its run, with the front.
    """

    results: Results
    read: Callable[[str], TrialRecord | None]
    run_id: str
    url: str
    run_url: str

    @property
    def name(self) -> str:
        """The study's name; the same name resumes it."""
        return self.results.name

    @property
    def points(self) -> Sequence[Point]:
        """Every evaluated trial on the size-score plane."""
        return self.results.points

    def record(self, allocation: str | Mapping[str, int] | BitAllocation) -> TrialRecord:
        """The record of an allocation: "vit=4 llm=3" or {"vit": 4, "llm": 3}.

        InputError if the study has no such record.
        """
        name = _name(allocation)
        if name not in (point.allocation for point in self.points):
            raise unknown("allocation", name, [point.allocation for point in self.points])
        record = self.read(name)
        if record is None:
            raise InputError(
                f"study: the record of {name} cannot be read (imported results have none)"
            )
        return record

    def records(self) -> list[TrialRecord]:
        """The record of every evaluated trial."""
        return [self.record(point.allocation) for point in self.points]

    def front(self) -> list[TrialRecord]:
        """The non-dominated trials, smallest first."""
        return [self.record(point.allocation) for point in pareto_front(self.points)]

    def selections(self) -> list[Selection]:
        """What the study's own budget selects; without one, the smallest within 1%."""
        return self.results.selections()

    def best(
        self,
        *,
        max_bpw: float | None = None,
        max_gib: float | None = None,
        min_score: float | None = None,
        max_drop: float | None = None,
        relative: bool = True,
        max_ms: float | None = None,
    ) -> Selection:
        """The best trial under a size; without a size, the smallest trial with the score.

        max_drop: below the unquantized score, as a share of it (0.01 for 1%), or in the score's
        units if not `relative`. max_ms: per answer, in a search by latency. Without any bound,
        the smallest within 1%. In a search of flips, the score is the agreement in percent.
        """
        relative = relative and max_drop is not None
        of_flips = self.results.budget.of_flips
        budget = Budget(max_bpw, max_gib, min_score, max_drop, relative, max_ms, of_flips=of_flips)
        return self.results.selections(budget)[0]

    @property
    def conclusion(self) -> str:
        """The verdict, and how certain it is."""
        return conclusion(self.results)

    def __str__(self) -> str:
        return f"{front_text(self.points, self.results.score_name)}\n\n{self.conclusion}"

    def _repr_markdown_(self) -> str:
        """The conclusion and the front, as a notebook shows them."""
        return description(self.results)


def _name(allocation: str | Mapping[str, int] | BitAllocation) -> str:
    if isinstance(allocation, str):
        return str(BitAllocation.parse(allocation))
    if isinstance(allocation, BitAllocation):
        return str(allocation)
    return str(BitAllocation.of(allocation))


def study_of(
    name: str,
    records: Sequence[TrialRecord],
    clusters: Sequence[str],
    run: "StudyRun",
    axis: SizeAxis = "stored",
    floor: float | None = None,
) -> Study:
    """The study of these records in its MLflow run. clusters: the picture of every sample."""
    by_allocation = {str(record.allocation): record for record in records}

    def per_sample(allocation: str) -> Sequence[float] | None:
        return by_allocation[allocation].sample_scores

    points = [point_of(record, axis) for record in records]
    results = Results(
        name,
        records[0].primary,
        points,
        per_sample,
        clusters,
        parameters=records[0].size.parameters,
        floor=floor,
        subject=records[0].spec.eval_spec.subject,
    )
    return Study(results, by_allocation.get, run.run_id, run.link(), run.run_link())


def point_of(record: TrialRecord, axis: SizeAxis = "stored") -> Point:
    """A record on the size-score plane."""
    return Point(
        allocation=str(record.allocation),
        bpw=record.size.bpw,
        score=record.score.value,
        low=record.score.low,
        high=record.score.high,
        stored_bpw=record.size.stored_bpw,
        run_id=record.run_id or None,
        nominal=axis == "nominal",
        tasks=record.tasks,
        flips=record.flips,
    )
