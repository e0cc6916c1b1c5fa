"""A process that opens an exported model and times its answers: `python -m mmq.export.measuring`.

Parent and child exchange one line of JSON at a time. The child opens one model only, so that its
memory is that model's, and ends with its standard input.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from mmq.contracts.images import FileImage, ImageRef
from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import AnswerFormat, AnswerProtocol, Request, VisionLanguageModel
from mmq.errors import InputError
from mmq.export.pictures import sample_picture
from mmq.system.piped_process import piped_process
from mmq.system.processor import peak_bytes, processor_name, resident_bytes
from mmq.system.variables import variables

SHOWN = 600  # characters of the child's messages in an error
SIDE = 336  # pixels of the generated picture


@dataclass(slots=True)
class Measuring:
    """A model that is open in a child process.

    before: bytes that the process had before it opened the model, if the engine runs in it.
    """

    process: "subprocess.Popen[str]"
    messages: IO[str]
    engine: Engine
    processor: str
    load: float
    before: int

    @classmethod
    @contextmanager
    def start(cls, model: Mapping[str, Any], workload: Mapping[str, Any]) -> "Iterator[Measuring]":
        """Open a model; InputError with the child's reason if that fails."""
        command = [sys.executable, "-m", "mmq.export.measuring"]
        with piped_process(command, variables()) as (process, messages):
            try:
                line = {"model": model, "workload": workload}
                opened = _exchange(process, messages, line)
                engine = Engine(**opened.pop("engine"))
                yield cls(process, messages, engine, **opened)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()

    def time_answer(self) -> AnswerTiming:
        """Time one answer."""
        return AnswerTiming(**_exchange(self.process, self.messages, {}))

    def peak_bytes(self) -> int | None:
        """Peak memory of the engine's process, without what it had before the model."""
        peak = peak_bytes(self.engine.process)
        return None if peak is None else peak - self.before


def _exchange(
    process: "subprocess.Popen[str]", messages: IO[str], line: Mapping[str, Any]
) -> dict[str, Any]:
    """Send a line to the child and return its answer; InputError if it reports or dies."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(line, default=str) + "\n")
        process.stdin.flush()
        text = process.stdout.readline()
    except BrokenPipeError:
        text = ""
    if not text:
        process.wait()
        messages.seek(0)
        reason = messages.read().strip()[-SHOWN:] or f"exit code {process.returncode}"
        raise InputError(f"the process that measures the model ended: {reason}")
    answer: dict[str, Any] = json.loads(text)
    if error := answer.get("error"):
        raise InputError(error)
    return answer


def main() -> None:
    """Open the model of the first line, then time one answer per line."""
    lines, out = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep what libraries print out of the answers

    def reply(answer: Mapping[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    first = json.loads(lines.readline())
    try:
        for answer in _answers(first["model"], first["workload"], lines):
            reply(answer)
    except InputError as error:
        reply({"error": str(error)})


def _answers(
    description: Mapping[str, Any], workload: Mapping[str, Any], lines: IO[str]
) -> Iterator[Mapping[str, Any]]:
    """The facts of the opened model, then a timing per line."""
    import torch

    from mmq.export.targets import build_target
    from mmq.models import loaded  # noqa: F401  (packages count before the model)

    if workload["threads"]:
        torch.set_num_threads(workload["threads"])
    target = build_target(description["target"], description["options"])
    folder, device = Path(description["folder"]), description["device"]
    before, started = resident_bytes(os.getpid()), time.perf_counter()
    with target.open(folder, device) as model:
        load, engine = time.perf_counter() - started, model.engine()
        inside = engine.process == os.getpid()
        yield {
            "engine": asdict(engine),
            "processor": processor_name(device),
            "load": load,
            "before": before if inside else 0,
        }
        for _ in lines:
            yield asdict(time_answer(model, workload))


def time_answer(model: VisionLanguageModel, workload: Mapping[str, Any]) -> AnswerTiming:
    """Time a model's answer to the workload; InputError for one that generates no text."""
    protocol = _protocol(model)
    config = replace(protocol.config, max_new_tokens=workload["tokens"], num_beams=1, batch_size=1)
    picture = _picture(workload["picture"])
    request = Request((picture,), protocol.prompt(workload["prompt"]), "measured")
    return model.time_answer(request, config)


def _protocol(model: VisionLanguageModel) -> AnswerProtocol:
    """The model's protocol for free text, or for the first format that it supports."""
    for answer_format in (AnswerFormat.FREE, *AnswerFormat):
        with suppress(InputError):
            return model.protocol(answer_format)
    return model.protocol(AnswerFormat.FREE)  # raises the reason


def _picture(path: str) -> ImageRef:
    """The picture in a file; "" is a generated one with all colours."""
    if path:
        return FileImage(Path(path))
    return sample_picture(SIDE)


if __name__ == "__main__":
    main()
