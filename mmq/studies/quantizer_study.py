"""A study of several quantizers on one model and task: opened, run, gone on with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, parse_bits, parse_widths
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.config import EXPERIMENT_HELP, TaskOptions, option
from mmq.errors import InputError
from mmq.models.loading import LoadedModel, locate
from mmq.models.skeleton import skeleton
from mmq.prepare import Prepared, prepare_quantizers, tried_widths
from mmq.studies.baseline import check_baseline
from mmq.studies.quantizer_choices import build, fitting
from mmq.studies.run import Planned, check_name, run_planned, safe_name
from mmq.system.hashing import digest
from mmq.system.home import home

if TYPE_CHECKING:
    from mmq.tracking import StudyRun


@dataclass(frozen=True, slots=True)
class PlannedOptions(TaskOptions):
    """A model and a task, and the widths of a study whose allocations are known beforehand."""

    bits: str = option("4,3,2", "Widths to quantize at.")
    study: str = option("", "Name of the study; made from what it asks if empty.")
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class QuantizerStudyOptions(PlannedOptions):
    """The same, and the quantizers to try."""

    quantizers: str = option(
        "", "Quantizers, like rtn,gptq:act-order=false,awq; all that are installed if empty."
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What a quantizer's trial found; the unquantized model's has no quantizer."""

    quantizer: str
    allocation: BitAllocation
    facts: Mapping[str, Any]

    @property
    def score(self) -> Mapping[str, Any]:
        """value, n, low and high of the metric that counts."""
        found: Mapping[str, Any] = self.facts["metrics"][self.facts["primary"]]
        return found


@dataclass(slots=True)
class QuantizerStudy:
    """An open study. prepared, artifacts, problems: by quantizer, as it was written."""

    name: str
    run: "StudyRun"
    model: LoadedModel
    bits: Sequence[int]
    prepared: Mapping[str, Prepared]
    artifacts: Mapping[str, Artifacts]
    problems: Mapping[str, str]

    @property
    def components(self) -> list[str]:
        """The model's components."""
        return list(self.model.components)

    @property
    def widths(self) -> list[int]:
        """The widths that quantize."""
        return [bits for bits in self.bits if bits != UNQUANTIZED]

    @property
    def clusters(self) -> list[str]:
        """The picture of every sample."""
        return [sample.image_id for sample in next(iter(self.prepared.values())).samples]

    @property
    def problem_text(self) -> str:
        """Which quantizers were not used, and why; "" where all were."""
        return "".join(f"\n\n{name}: not used. {why}" for name, why in self.problems.items())

    def trials(self, allocations: Iterable[BitAllocation]) -> list[Trial]:
        """The unquantized model, then every allocation with every quantizer.

        What is on disk is not evaluated again. RuntimeError where some of them failed: what was
        evaluated is kept, and the next call tries the others again.
        """
        untouched = BitAllocation.uniform(self.components, UNQUANTIZED)
        first = Planned(next(iter(self.prepared)), untouched)
        found = self._run([first])
        self._check_baseline(found)
        planned = [
            Planned(label, each)
            for each in dict.fromkeys(allocations)
            for label in self.prepared
            if each != untouched
        ]
        found |= self._run(planned)
        if missing := len(planned) + 1 - len(found):
            raise RuntimeError(f"{missing} trials failed; the same command tries them again")
        return [
            Trial("" if each.allocation == untouched else each.label, each.allocation, facts)
            for each, facts in found.items()
        ]

    def _run(self, planned: Sequence[Planned]) -> dict[Planned, Mapping[str, Any]]:
        return run_planned(self.run, self.model, planned, self.prepared, self.artifacts)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which values scores lie, where that is known."""
        return next(iter(self.prepared.values())).evaluator.bounds

    def _check_baseline(self, found: Mapping[Planned, Mapping[str, Any]]) -> None:
        """InputError where the unquantized model scores nothing: the others have no sense then."""
        for facts in found.values():
            try:
                check_baseline(facts["metrics"][facts["primary"]], facts["primary"], self.bounds)
            except InputError as error:
                self.run.describe(str(error))
                raise


@contextmanager
def reporting() -> Iterator[None]:
    """Around logging what a finished study found: a disk or store that refuses ends nothing."""
    from mmq.tracking import best_effort

    with best_effort("The results are printed but not logged; the same command logs them later"):
        yield


@contextmanager
def opened(
    chosen: PlannedOptions, quantizers: str, extra: Mapping[str, str], kind: str
) -> Iterator[QuantizerStudy]:
    """Check everything, load the model, open the study's parent run; close them at the end.

    quantizers: as in `SeveralOptions`. InputError where none of them can be used.
    """
    from mmq.tracking import find_study, signature, study_run

    check_name(chosen.study)
    bits = parse_bits(chosen.bits)
    below = parse_widths(chosen.bits)
    choices, evaluator, problems = build(quantizers, chosen, extra)

    def allocations(parts: Sequence[str]) -> list[BitAllocation]:
        return [BitAllocation.uniform(parts, width) for width in below]

    seen = skeleton(locate(chosen.model, chosen.allow_pickle))
    usable, refused = fitting(
        choices, seen, tried_widths(seen, allocations(list(seen.components)))
    )
    problems |= refused
    if not usable:
        reasons = "".join(f"\n  {label}: {problem}" for label, problem in problems.items())
        raise InputError(f"quantizers: none of them can be used here{reasons}")
    prepared = dict(
        zip(
            [choice.label for choice in usable],
            prepare_quantizers(
                chosen, evaluator, [(c.name, c.quantizer) for c in usable], allocations
            ),
            strict=True,
        )
    )
    questions = [each.question for each in prepared.values()]
    name = chosen.study or study_name(kind, chosen, [question.key for question in questions])
    asked = signature(questions, kind)
    parent = find_study(chosen.experiment, name, asked)  # before the model is loaded
    model = next(iter(prepared.values())).load()
    store = Store(home() / "store")
    artifacts = {label: each.artifacts(store) for label, each in prepared.items()}
    try:
        with study_run(chosen.experiment, name, questions, parent, kind) as run:
            yield QuantizerStudy(name, run, model, bits, prepared, artifacts, problems)
    finally:
        evaluator.close()


def study_name(kind: str, chosen: PlannedOptions, keys: Sequence[str]) -> str:
    """A readable name that tells two studies apart."""
    model = chosen.model.rstrip("/").split("/")[-1]
    asked = digest([sorted(keys), chosen.bits])[:8]
    return safe_name(f"{model}-{chosen.task}-{kind}-{asked}")
