"""Run an exported model in llama.cpp, in another process."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch

from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import GenerationConfig, Progress, Request, VisionLanguageModel
from mmq.data.png import png_url
from mmq.errors import InputError
from mmq.export.targets import need
from mmq.system.piped_process import piped_process
from mmq.system.variables import variables
from mmq_plugins.targets.gguf_server import CONTEXT, READY

TIMEOUT = 600  # seconds, for one answer
SHOWN = 600  # characters of the log in an error
ERRORS = 6  # lines
# a prompt that was read in other pieces, from a cache, rounds differently
DECODING = {"temperature": 0, "cache_prompt": False}


@dataclass(slots=True)
class LlamaCpp(VisionLanguageModel):
    """A model served by llama.cpp, which applies the chat template."""

    address: str
    log: IO[str]
    threads: int
    process: int

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request, greedily; InputError for beam search, which llama.cpp lacks."""
        if config.num_beams > 1:
            raise InputError(
                f"llama.cpp decodes greedily, and {config.num_beams} beams were requested; give "
                f"--num-beams 1, for the scored model too"
            )
        return [
            self._answer(request, config)
            for batch in progress([[request] for request in requests], "generate")
            for request in batch
        ]

    def render(self, request: Request) -> str:
        """The prompt as llama.cpp reads it, with <image> for each picture."""
        rendered: str = self._post("/apply-template", {"messages": _messages(request)})["prompt"]
        marker = self._post("/props", None)["media_marker"]
        return rendered.replace(marker, "<image>")

    def engine(self) -> Engine:
        """llama.cpp in a process of its own."""
        return Engine("llama.cpp", engine_version(), self.threads, self.process)

    def time_answer(self, request: Request, config: GenerationConfig) -> AnswerTiming:
        """The time of an answer of exactly `config.max_new_tokens` tokens.

        The vision encoder's time is the difference to a prompt of as many text tokens.
        """
        started = time.perf_counter()
        answer = self._complete(request, config, ignore_eos=True)
        seconds, timings = time.perf_counter() - started, answer["timings"]
        decoding, prompt = timings["predicted_ms"] / 1000, timings["prompt_ms"] / 1000
        vision = None
        if request.images:
            vision = max(0.0, prompt - self._reading(timings["prompt_n"]))
        return AnswerTiming(
            seconds=seconds,
            tokens=timings["predicted_n"],
            first_token=seconds - decoding,
            decoding=decoding,
            vision=vision,
        )

    def _reading(self, count: int) -> float:
        """Seconds that llama.cpp takes to read `count` text tokens."""
        body = {"prompt": [k % 100 + 3 for k in range(count)], "n_predict": 1} | DECODING
        answer = self._post("/completion", body)
        return float(answer["timings"]["prompt_ms"]) / 1000

    def _answer(self, request: Request, config: GenerationConfig) -> str:
        answer = self._complete(request, config)
        text: str = answer["choices"][0]["message"]["content"] or ""
        return text.strip()

    def _complete(
        self, request: Request, config: GenerationConfig, ignore_eos: bool = False
    ) -> Any:
        """llama.cpp's response to a request, decoded greedily."""
        body = {
            "messages": _messages(request),
            "max_tokens": config.max_new_tokens,
            "ignore_eos": ignore_eos,
        }
        what = f"sample {request.sample_id!r}"
        return self._post("/v1/chat/completions", body | DECODING, what)

    def _post(self, path: str, body: Any, what: str = "the request") -> Any:
        call = urllib.request.Request(
            self.address + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(call, timeout=TIMEOUT) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")[:SHOWN]
            raise InputError(f"llama.cpp does not answer {what}: {reason}") from error
        except OSError as error:
            raise InputError(f"llama.cpp ended at {what}: {_tail(self.log)}") from error


def _messages(request: Request) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": png_url(image)}} for image in request.images
    ]
    content.append({"type": "text", "text": request.prompt})
    return [{"role": "user", "content": content}]


def _tail(log: IO[str]) -> str:
    """The last errors in llama.cpp's log, or else its last lines."""
    log.seek(0)
    lines = log.read().splitlines()
    errors = [line.split(" E ", 1)[-1] for line in lines if " E " in line or "ASSERT" in line]
    return "; ".join(errors[-ERRORS:])[-SHOWN:] or "\n".join(lines)[-SHOWN:] or "it wrote nothing"


def engine_version() -> str:
    """Name and version of the package; InputError, with the extra, if it is not installed."""
    need("xllamacpp", "gguf")
    return f"xllamacpp {version('xllamacpp')}"


@contextmanager
def running(
    folder: Path, device: str, threads: int = 0, context: int = CONTEXT
) -> Iterator[LlamaCpp]:
    """The model of an exported folder in llama.cpp; the process ends with the context.

    InputError where llama.cpp does not load it, with what llama.cpp wrote.
    """
    need("xllamacpp", "gguf")
    count = threads or torch.get_num_threads()
    command = [sys.executable, "-m", "mmq_plugins.targets.gguf_server", str(folder)]
    command += ["--threads", str(count), "--context", str(context), "--until-eof"]
    command += ["--gpu"] if device.startswith("cuda") else []
    env = variables() | {"GGML_NO_BACKTRACE": "1"}  # a debugger would hide the reason
    with piped_process(command, env) as (process, log):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = ""
            for line in process.stdout:
                if line.startswith(READY):
                    address = line.removeprefix(READY).strip()
                    break
            if not address:
                raise InputError(f"llama.cpp cannot load {folder}: {_tail(log)}")
            yield LlamaCpp(address, log, count, process.pid)
        finally:
            process.stdin.close()
            process.kill()
