"""The time and memory that exported models take in their engines, measured in turns.

    cost = time_answers({"mine": ExportedModel.of(Path("./mine"), "cpu")})["mine"]
    cost.seconds.median, cost.peak_bytes

Each model is opened in a process of its own. In each round every model gives one answer, so that
other load on the machine slows all of them alike; ratios are computed within each round.
"""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.export.facts import FACTS, PARTIAL, UNVERIFIED, file_sizes, read_facts
from mmq.export.measuring import Measuring, time_answer
from mmq.system.available_memory import available_memory
from mmq.system.disk import in_mib
from mmq.system.processor import peak_bytes, processor_name
from mmq.system.progress import progress_bar

PROMPT = "Describe the picture."
QUICK_REPEATS, QUICK_TOKENS = 3, 16  # workload for a model that is already open


@dataclass(frozen=True, slots=True)
class Workload:
    """The question that every model answers repeatedly.

    picture: a file; "" for a generated one of 336 x 336 pixels. tokens: the length of each answer,
    past any end-of-text token. threads: of the processor; 0 for PyTorch's default.
    """

    repeats: int = 5
    tokens: int = 32
    picture: str = ""
    prompt: str = PROMPT
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("tokens", 2), ("threads", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)} is not at least {least}")
        if self.picture and not Path(self.picture).is_file():
            raise InputError(f"picture: {self.picture} is not a file")


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An exported folder, and the target (with its options) that opens it."""

    folder: Path
    target: str
    options: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @classmethod
    def of(cls, folder: Path, device: str) -> "ExportedModel":
        """The model in a folder that `mmq export` wrote; InputError for any other folder."""
        facts = check_exported(folder)
        options = {name: str(value) for name, value in facts.get("target_options", {}).items()}
        return cls(folder, facts["target"], options, device)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of values; None without any."""
        numbers = [value for value in values if value is not None]
        if not numbers:
            return None
        return cls(statistics.median(numbers), min(numbers), max(numbers))

    def __str__(self) -> str:
        return f"{_number(self.median)} ({_number(self.low)} to {_number(self.high)})"


def _number(value: float) -> str:
    """Three digits, and no exponent for large ones."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


Value = Callable[[AnswerTiming], float | None]
PER_ANSWER: Mapping[str, Value] = {  # name in metrics: value of an answer
    "answer_seconds": lambda answer: answer.seconds,
    "first_token_seconds": lambda answer: answer.first_token,
    "vision_seconds": lambda answer: answer.vision,
    "tokens_per_second": lambda answer: answer.tokens_per_second,
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The cost of a model in its engine.

    load: seconds to open it. peak_bytes: memory of the engine's process at most; where that is
    Python, without what Python and its packages took before; None where the system has no record.
    file_bytes: of the exported folder. processor: its name.
    """

    engine: Engine
    processor: str
    load: float
    answers: tuple[AnswerTiming, ...]
    peak_bytes: int | None
    file_bytes: int

    def spread(self, name: str) -> Spread | None:
        """One of PER_ANSWER over all answers; None if the engine does not report it."""
        return Spread.of(PER_ANSWER[name](answer) for answer in self.answers)

    @property
    def seconds(self) -> Spread:
        """Seconds per answer."""
        spread = self.spread("answer_seconds")
        assert spread is not None
        return spread

    def __str__(self) -> str:
        speed, first = self.spread("tokens_per_second"), self.spread("first_token_seconds")
        parts = [
            str(self.engine),
            f"loaded in {self.load:.3g} s",
            f"an answer of {self.answers[0].tokens} tokens in {self.seconds} s",
            f"first token after {first} s",
        ]
        if speed is not None:
            parts.append(f"then {speed} tokens per second")
        if self.peak_bytes is not None:
            parts.append(f"{in_mib(self.peak_bytes)} of memory at most")
        return "; ".join(parts)

    def metrics(self) -> dict[str, float]:
        """All values by name: medians, with least and greatest."""
        values: dict[str, float | None] = {
            "load_seconds": self.load,
            "peak_bytes": self.peak_bytes,
            "file_bytes": self.file_bytes,
        }
        for name in PER_ANSWER:
            if (spread := self.spread(name)) is not None:
                values |= {
                    name: spread.median,
                    f"{name}_low": spread.low,
                    f"{name}_high": spread.high,
                }
        return {name: value for name, value in values.items() if value is not None}


def ratios(one: Measurement, other: Measurement) -> dict[str, Spread]:
    """The first model's values divided by the second's: per round, where there are rounds.

    Both must come from the same call of `time_answers`.
    """
    result: dict[str, Spread | None] = {"load_seconds": _ratio([one.load], [other.load])}
    for name, value in PER_ANSWER.items():
        result[name] = _ratio(map(value, one.answers), map(value, other.answers))
    result["peak_bytes"] = _ratio([one.peak_bytes], [other.peak_bytes])
    result["file_bytes"] = _ratio([one.file_bytes], [other.file_bytes])
    return {name: spread for name, spread in result.items() if spread is not None}


def _ratio(ones: Iterable[float | None], others: Iterable[float | None]) -> Spread | None:
    pairs = zip(ones, others, strict=True)
    return Spread.of(None if a is None or not b else a / b for a, b in pairs)


def time_answers(
    models: Mapping[str, ExportedModel], workload: Workload | None = None, quiet: bool = False
) -> dict[str, Measurement]:
    """Open all models at once, let them answer in turns, and return their costs by name.

    The first round is a warm-up and is not counted. InputError, with the engine's reason, for a
    folder that its target cannot open, and for more models than fit into memory.
    """
    workload = workload or Workload()
    _check_memory([model.folder for model in models.values()])
    answers: dict[str, list[AnswerTiming]] = {name: [] for name in models}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(Measuring.start(asdict(model), asdict(workload)))
            for name, model in models.items()
        }
        rounds = progress_bar(
            range(workload.repeats + 1), desc="measure", unit="round", leave=False, quiet=quiet
        )
        for number in rounds:
            for name, process in running.items():
                answer = process.time_answer()
                if number:
                    answers[name].append(answer)
        peaks = {name: process.peak_bytes() for name, process in running.items()}
    return {
        name: Measurement(
            engine=process.engine,
            processor=process.processor,
            load=process.load,
            answers=tuple(answers[name]),
            peak_bytes=peaks[name],
            file_bytes=sum(file_sizes(models[name].folder).values()),
        )
        for name, process in running.items()
    }


def measure_opened(
    model: VisionLanguageModel, folder: Path, device: str, load: float
) -> Measurement:
    """The cost of a few answers of a model that is already open.

    peak_bytes is None if the engine runs in this process, which did other work before.
    """
    workload = asdict(Workload(repeats=QUICK_REPEATS, tokens=QUICK_TOKENS))
    answers = [time_answer(model, workload) for _ in range(QUICK_REPEATS + 1)]
    engine = model.engine()
    return Measurement(
        engine=engine,
        processor=processor_name(device),
        load=load,
        answers=tuple(answers[1:]),
        peak_bytes=None if engine.process == os.getpid() else peak_bytes(engine.process),
        file_bytes=sum(file_sizes(folder).values()),
    )


def _check_memory(folders: Sequence[Path]) -> None:
    size = sum(sum(file_sizes(folder).values()) for folder in folders)
    available = available_memory()
    if size > available:
        raise InputError(
            f"memory: {len(folders)} models take at least {in_mib(size)} at once, and "
            f"{in_mib(available)} are available; close other programs, or measure without the "
            f"unquantized model (--unquantized false)"
        )


def check_exported(folder: Path) -> Mapping[str, Any]:
    """The facts in an exported folder; InputError for any other folder."""
    for suffix, state in ((UNVERIFIED, "failed its proof"), (PARTIAL, "is not complete")):
        if folder.name.endswith(suffix):
            raise InputError(
                f"path: {folder} {state}: it is not the model that was scored; run `mmq export` "
                f"again and give the folder that it writes"
            )
    if not folder.is_dir():
        raise InputError(f"path: {folder} is not a folder; give one that `mmq export` wrote")
    facts = read_facts(folder)
    if "target" not in facts:
        raise InputError(
            f"path: {folder} has no readable {FACTS}; give a folder that `mmq export` wrote"
        )
    return facts
