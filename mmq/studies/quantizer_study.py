"""A study of one or several quantizers on one model and task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, parse_bits, parse_widths
from mmq.contracts.launcher import LaunchRequest
from mmq.errors import InputError, ShareDone, TrialsFailed
from mmq.model_setup import requested_parts, tried_widths
from mmq.models.loading import locate
from mmq.models.skeleton import skeleton
from mmq.prepare import prepare_quantizers
from mmq.record import TrialRecord
from mmq.studies import session
from mmq.studies.baseline import check_baseline
from mmq.studies.options import PlannedOptions
from mmq.studies.quantizer_choices import build, fitting
from mmq.studies.request_text import command_line
from mmq.studies.run import Planned, check_name, run_planned, safe_name
from mmq.studies.session import Session
from mmq.studies.sharing import recorded, run_share, work_list
from mmq.studies.work_list import WorkList
from mmq.studies.workers import Placement, commands, follow, for_workers, in_study, placement
from mmq.system.hashing import digest
from mmq.system.wording import counted
from mmq.system.worker import end_with_launcher, is_worker

if TYPE_CHECKING:
    from mmq.tracking import StudyRun


@dataclass(frozen=True, slots=True)
class Trial:
    """A quantizer's trial; the unquantized model's has no quantizer ("")."""

    quantizer: str
    allocation: BitAllocation
    record: TrialRecord


@dataclass(slots=True)
class QuantizerStudy:
    """An open study. sessions, problems: by quantizer, as it was written.

    placed: the workers that evaluate the trials, and their launcher; None if this process does.
    work: the work list that this process shares, as a worker.
    """

    name: str
    run: "StudyRun"
    bits: Sequence[int]
    sessions: Mapping[str, Session]
    problems: Mapping[str, str]
    placed: tuple[Placement, LaunchRequest] | None = None
    work: WorkList | None = None

    @property
    def first(self) -> Session:
        """The session that evaluates the unquantized model."""
        return next(iter(self.sessions.values()))

    @property
    def components(self) -> list[str]:
        """The model's components."""
        return list(self.first.prepared.skeleton.components)

    @property
    def widths(self) -> list[int]:
        """The widths that quantize."""
        return [bits for bits in self.bits if bits != UNQUANTIZED]

    @property
    def clusters(self) -> list[str]:
        """The picture of every sample."""
        return [sample.image_id for sample in self.first.prepared.samples]

    @property
    def problem_text(self) -> str:
        """Which quantizers were not used, and why; "" if all were."""
        return "".join(f"\n\n{name}: not used. {why}" for name, why in self.problems.items())

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range of scores, if the evaluator defines it."""
        return self.first.prepared.evaluator.bounds

    @property
    def floor(self) -> float | None:
        """The lowest possible score, if the evaluator defines it."""
        return None if self.bounds is None else self.bounds[0]

    def trials(self, allocations: Iterable[BitAllocation]) -> list[Trial]:
        """The unquantized model, then every allocation with every quantizer.

        Trials with a saved record are not evaluated again. TrialsFailed if some failed:
        completed ones are saved, and the next call retries the others.
        """
        unquantized = BitAllocation.uniform(self.components, UNQUANTIZED)
        baseline = Planned(next(iter(self.sessions)), unquantized)
        planned = [
            Planned(label, each)
            for each in dict.fromkeys(allocations)
            for label in self.sessions
            if each != unquantized
        ]
        if self.work is not None:
            self._share(self.work, baseline, planned)
        records = self._evaluated(baseline, planned)
        if missing := len(planned) + 1 - len(records):
            raise TrialsFailed(
                f"{counted(missing, 'trial')} failed; run the same command to retry"
            )
        return [
            Trial("" if each.allocation == unquantized else each.label, each.allocation, record)
            for each, record in records.items()
        ]

    def _evaluated(
        self, baseline: Planned, planned: Sequence[Planned]
    ) -> dict[Planned, TrialRecord]:
        """The records of all trials, evaluated here or by the workers."""
        if self.placed is None:
            records = run_planned(self.run, [baseline], self.sessions)
            self._check_baseline(records)
            return records | run_planned(self.run, planned, self.sessions)
        every = [baseline, *planned]
        records = recorded(self.run, every, self.sessions)
        missing = [str(trial) for trial in every if trial not in records]
        if missing:
            work, (place, request) = work_list(self.run.study, self.run.run_id), self.placed
            work.offer(missing)

            def done() -> int:
                return len(records) + work.count_done(missing)

            request = in_study(request, self.run.experiment, self.run.run_id)
            with work.present():
                follow(
                    place.launcher, request, done, len(every), lambda: not work.count_open(missing)
                )
            records = recorded(self.run, every, self.sessions)
        self._check_baseline({k: v for k, v in records.items() if k == baseline})
        return {trial: records[trial] for trial in every if trial in records}

    def _share(self, work: WorkList, baseline: Planned, planned: Sequence[Planned]) -> None:
        """Evaluate this worker's share, the unquantized model first; ends with ShareDone."""
        work.check_offered([str(trial) for trial in (baseline, *planned)])
        run_share(self.run, work, [baseline], self.sessions)
        self._check_baseline(recorded(self.run, [baseline], self.sessions))
        run_share(self.run, work, planned, self.sessions)
        raise ShareDone

    def _check_baseline(self, records: Mapping[Planned, TrialRecord]) -> None:
        """InputError if the unquantized score is the lowest possible: nothing can be compared."""
        for record in records.values():
            try:
                check_baseline(record.score, record.primary, self.bounds)
            except InputError as error:
                self.run.describe(str(error))
                raise


@contextmanager
def reporting() -> Iterator[None]:
    """Around logging the results of a study: an error of the disk or store loses no result."""
    from mmq.tracking import best_effort

    with best_effort("The results are not logged; run the same command to log them later"):
        yield


@contextmanager
def opened(
    options: PlannedOptions,
    quantizers: str,
    plugin_options: Mapping[str, Any],
    kind: str,
    command: str,
) -> Iterator[QuantizerStudy]:
    """Check everything, load the model and open the study's parent run; close them at the end.

    quantizers: as in `QuantizerStudyOptions`. command: what workers run. InputError if none of
    the quantizers can be used.
    """
    from mmq.tracking import find_study, study_run

    check_name(options.study)
    place, plugin_options = placement(options, plugin_options)
    options = for_workers(options, place)
    bits = parse_bits(options.bits)
    below = parse_widths(options.bits)
    choices, evaluator, problems = build(quantizers, options, plugin_options)

    def allocations(parts: Sequence[str]) -> list[BitAllocation]:
        return [BitAllocation.uniform(parts, width) for width in below]

    outline = skeleton(locate(options.model, options.allow_pickle), requested_parts(options))
    usable, refused = fitting(
        choices, outline, tried_widths(outline, allocations(list(outline.components)))
    )
    problems |= refused
    if not usable:
        reasons = "".join(f"\n  {label}: {problem}" for label, problem in problems.items())
        raise InputError(f"quantizers: none of them can be used:{reasons}")
    prepared = prepare_quantizers(
        options, evaluator, [(c.name, c.quantizer) for c in usable], allocations
    )
    eval_specs = [entry.eval_spec for entry in prepared]
    name = options.study or study_name(kind, options, [spec.key for spec in eval_specs])
    placed = None
    if not place.is_alone:
        fixed = {"study": name}
        lines = commands(command, options, plugin_options, place, **fixed)
        placed = place, place.request(name, lines)
    parent = find_study(options.experiment, name, eval_specs, kind)
    work = _shared_work(name, parent) if is_worker() else None
    with (
        nullcontext() if work is None else work.present(),  # listed while it loads the model, too
        session.opened(prepared, options.experiment, is_worker(), placed is not None) as sessions,
        study_run(options.experiment, name, eval_specs, parent, kind) as run,
    ):
        run.request = command_line(command, options, plugin_options)
        if is_worker():
            run.has_others = lambda: True  # the command that launched it ends the run
        labels = [choice.label for choice in usable]
        yield QuantizerStudy(
            name, run, bits, dict(zip(labels, sessions, strict=True)), problems, placed, work
        )


def _shared_work(name: str, parent: tuple[str, str] | None) -> WorkList:
    """A worker's part in the work of its study; InputError if no command has planned any."""
    end_with_launcher()
    if parent is None:
        raise InputError(
            f"study: {name!r} does not exist. Workers share what a command plans: run it "
            f"without --dry-run, and it submits them."
        )
    return work_list(name, parent[1])


def study_name(kind: str, options: PlannedOptions, keys: Sequence[str]) -> str:
    """A readable name, different for every study."""
    model = options.model.rstrip("/").split("/")[-1]
    key = digest([sorted(keys), options.bits])[:8]
    return safe_name(f"{model}-{options.task}-{kind}-{key}")
