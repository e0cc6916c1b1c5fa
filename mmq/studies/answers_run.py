"""The answers of two allocations side by side, those that differ first."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.analysis.tables import aligned
from mmq.analysis.tables import markdown as markdown_table
from mmq.config import EXPERIMENT_HELP, option
from mmq.contracts import Evaluator, ImageRef, Metric, registry
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.flips import FLIPS, differs
from mmq.evaluation.stats import mean_metric
from mmq.system.environment import set_up_environment

log = logging.getLogger(__name__)
TABLE = "answers.json"
WIDEST = 40  # characters of a text in the terminal's table
CONTEXT = 12  # of them, at least, before or behind the first difference
HEAD = ("sample", "prompt", "expected", "first", "second", "score", "flip")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Options of a comparison of answers."""

    first: str = option(
        "", "Run of the first trial, if not an argument (e.g. models:/NAME@ALIAS)."
    )
    second: str = option("", "Second run, if not an argument.")
    rows: int = option(24, "Show this many samples, those that differ first (e.g. 100).")
    data: str = option(
        "", "Read the pictures from this data set or folder; empty: that of the first run."
    )
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Both outputs for one sample, and whether the answers that are read from them differ.

    gained: the second score minus the first.
    """

    sample_id: str
    prompt: str
    expected: str
    first: str
    second: str
    first_score: float
    second_score: float
    image: str
    flipped: bool

    @property
    def gained(self) -> float:
        """By how much the second answer is better."""
        return self.second_score - self.first_score


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """Two allocations' answers to the same samples: flips first, the largest losses before.

    flips: percent of the answers that differ, with an interval over pictures. only_first,
    only_second: how many samples only one of the two answered. url: of the run in MLflow.
    """

    first: str
    second: str
    pairs: Sequence[AnswerPair]
    flips: Metric
    only_first: int = 0
    only_second: int = 0
    url: str = ""

    @property
    def headline(self) -> str:
        """The number of flips, and of those that are worse and better."""
        flips = [pair for pair in self.pairs if pair.flipped]
        worse = sum(pair.gained < 0 for pair in flips)
        better = sum(pair.gained > 0 for pair in flips)
        share = f"{self.flips.value:.3g}%"
        if self.flips.low is not None:
            share += f" (95% interval {self.flips.low:.3g}% to {self.flips.high:.3g}%)"
        return (
            f"{len(flips)} of {len(self.pairs)} answers differ, {share}: {worse} score less "
            f"in {self.second}, {better} more, {len(flips) - worse - better} the same"
        )

    @property
    def notes(self) -> list[str]:
        """A note about the samples that are not compared."""
        counts = {self.first: self.only_first, self.second: self.only_second}
        return [
            f"Not compared: {count} samples that only {name} answered"
            for name, count in counts.items()
            if count
        ]

    def text(self, rows: int) -> str:
        """The headline, and the first rows as a table for the terminal."""
        table = aligned(HEAD, [_row(pair) for pair in self.pairs[:rows]])
        about = f"first: {self.first}\nsecond: {self.second}"
        return "\n\n".join(["\n".join([self.headline, *self.notes]), about, table])

    def __str__(self) -> str:
        return self.text(24)

    def _repr_markdown_(self) -> str:
        """The same, as a notebook shows it."""
        table = markdown_table(HEAD, [_row(pair) for pair in self.pairs[:24]])
        return "\n\n".join([self.headline, *self.notes, table])


def compare_answers(
    first: str, second: str, options: CompareOptions | None = None
) -> AnswerComparison:
    """Compare the answers of two trials, and log them side by side with their pictures.

    first, second: ids of the trials' runs, or models:/NAME@ALIAS. InputError for trials without a
    common sample; samples that only one of them answered are counted and left out.
    """
    from mmq.tracking import plain_run
    from mmq.tracking.predictions import fetch_answers

    set_up_environment()
    options = options or CompareOptions()
    if options.rows < 1:
        raise InputError(f"rows: {options.rows} is not at least 1")
    one, other = fetch_answers(first), fetch_answers(second)
    common = [key for key in one.answers if key in other.answers]
    if not common:
        raise InputError(
            f"run: {first} and {second} have no sample in common; compare trials on the same data"
        )
    if one.data_fingerprint != other.data_fingerprint:
        changed = [k for k in common if one.answers[k].image != other.answers[k].image]
        if changed:
            raise InputError(
                f"run: {first} and {second} were scored on different data: sample {changed[0]} "
                f"has the picture {one.answers[changed[0]].image} in one and "
                f"{other.answers[changed[0]].image} in the other"
            )
    pairs = [
        AnswerPair(
            key, a.prompt, a.expected, a.text, b.text, a.score, b.score, a.image,
            differs(a.answer, b.answer),
        )
        for key, a, b in ((key, one.answers[key], other.answers[key]) for key in common)
    ]  # fmt: skip
    pairs.sort(key=lambda pair: (not pair.flipped, pair.gained))
    flipped = [float(pair.flipped) for pair in pairs]
    result = AnswerComparison(
        f"{one.allocation} ({one.run_id[:8]})",
        f"{other.allocation} ({other.run_id[:8]})",
        pairs,
        mean_metric(flipped, [pair.image for pair in pairs], scale=100.0),
        len(one.answers) - len(common),
        len(other.answers) - len(common),
    )
    params = {"compare.first": one.run_id, "compare.second": other.run_id}
    title = f"answers of {one.allocation} and {other.allocation}"
    with plain_run(options.experiment, title[:250], params, kind="answers") as run:
        first_pairs = pairs[: options.rows]
        pictures = _pictures(one.run_id, options.data, [pair.sample_id for pair in first_pairs])
        rows = [_logged_row(pair) for pair in first_pairs]
        run.log_pictured_table(TABLE, rows, [pictures.get(p.sample_id, ()) for p in first_pairs])
        run.log(metrics=_metrics(result))
        run.describe("\n\n".join([result.headline, *result.notes]))
        url = run.run_link()
    return AnswerComparison(
        result.first, result.second, result.pairs, result.flips,
        result.only_first, result.only_second, url,
    )  # fmt: skip


def _pictures(
    run_id: str, data: str, sample_ids: Sequence[str]
) -> Mapping[str, Sequence[ImageRef]]:
    """The pictures of samples, read from the data again; none, with a warning, if it is gone."""
    from mmq.tracking import trial_options

    options = trial_options(run_id).options
    try:
        evaluator = registry.load_class("evaluator", options["task"], Evaluator)
        task = evaluator.samples_of or evaluator.task
        reading = [options.get(name, "") for name in ("dataset", "fields")]
        source = find_source(task, data or options["data"], *reading)
        ids = set(sample_ids)
        return {s.id: s.images for s in source.samples() if s.id in ids}
    except (InputError, OSError, LookupError) as error:
        log.warning("The table has no pictures (%s); name the data with --data", error)
        return {}


def _metrics(result: AnswerComparison) -> dict[str, float]:
    flips = result.flips
    values = {FLIPS: flips.value, f"{FLIPS}_low": flips.low, f"{FLIPS}_high": flips.high}
    counts = {
        "samples": len(result.pairs),
        "worse": sum(pair.gained < 0 for pair in result.pairs),
        "better": sum(pair.gained > 0 for pair in result.pairs),
    }
    return counts | {name: round(v, 6) for name, v in values.items() if v is not None}


def _logged_row(pair: AnswerPair) -> dict[str, Any]:
    return {
        "flip": "yes" if pair.flipped else "no",
        "prompt": pair.prompt,
        "expected": pair.expected,
        "first": pair.first,
        "second": pair.second,
        "first score": round(pair.first_score, 3),
        "second score": round(pair.second_score, 3),
        "sample": pair.sample_id,
    }


def _row(pair: AnswerPair) -> list[str]:
    score = f"{pair.first_score:.3g} -> {pair.second_score:.3g}"
    answers = [" ".join(text.split()) for text in (pair.first, pair.second)]
    start = _start(*answers)
    texts = [*map(_short, (pair.sample_id, pair.prompt, pair.expected))]
    texts += [_short(text, start) for text in answers]
    return [*texts, score, "flip" if pair.flipped else ""]


def _start(first: str, second: str) -> int:
    """Where to show two answers from, so that their first difference is visible."""
    pairs = enumerate(zip(first, second, strict=False))
    same = next((k for k, (own, other) in pairs if own != other), min(len(first), len(second)))
    if first == second or same < WIDEST - CONTEXT:
        return 0
    near = same - CONTEXT  # Chinese has no spaces between words
    return first.rfind(" ", near - CONTEXT, near) + 1 or near


def _short(text: str, start: int = 0) -> str:
    """A text on one line that fits into a column."""
    line = " ".join(text.split())
    line = f"...{line[start:]}" if start else line
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 3]}..."
