"""A model behind a server that speaks the OpenAI chat completions protocol.

vLLM, llama-server, SGLang and hosted services do. Only the standard library is used.
"""

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from functools import lru_cache
from http.client import HTTPException
from typing import Any

from mmq.contracts.vlm import GenerationConfig, Progress, Request, VisionLanguageModel
from mmq.data.png import png_url
from mmq.errors import InputError
from mmq.models.reasoning import CUT, without_reasoning

log = logging.getLogger(__name__)
KEY = "OPENAI_API_KEY"  # environment variable with the server's key, if it needs one
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # HTTP statuses that may pass
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between attempts
REASONING = ("reasoning_content", "reasoning")  # fields where servers put what precedes answers
SHOWN = 300  # characters of a server's message
_url = lru_cache(64)(png_url)  # questions about one picture follow each other


class EndpointError(InputError):
    """A server that cannot be reached, refuses, or stays silent."""


class _PassingError(Exception):
    """A failure that may not happen again. after: seconds to wait, if the server names them."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(slots=True)
class ChatEndpoint(VisionLanguageModel):
    """Asks a server, several requests at a time; each is retried with growing waits.

    url: up to and with /v1. model: as the server calls it. timeout: seconds per attempt. template:
    variables of the chat template, which vLLM, SGLang and llama-server pass on to it. finished:
    outputs of the current call by sample id, so that an error or an interrupt loses none.
    """

    url: str
    model: str
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    first_wait: float = FIRST_WAIT
    system_prompt: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _refused: threading.Event = field(default_factory=threading.Event)
    _warned: bool = False

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request; EndpointError for the first that fails permanently."""
        check_decoding(config)
        self.finished.clear()
        self._stop.clear()
        self._refused.clear()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="ask")
        answers = [pool.submit(self._ask, request, config) for request in requests]
        try:
            batches = [[number] for number in range(len(requests))]
            return [answers[number].result() for (number,) in progress(batches, "ask")]
        finally:
            self._stop.set()  # what waits between attempts gives up
            pool.shutdown(cancel_futures=True)  # answers that are on their way count
            for request, answer in zip(requests, answers, strict=True):
                if not answer.cancelled() and answer.exception() is None:
                    self.finished[request.sample_id] = answer.result()

    def _ask(self, request: Request, config: GenerationConfig) -> str:
        """The text of a request; no request is sent after one has failed permanently."""
        if self._refused.is_set():
            raise EndpointError(f"endpoint: an earlier request to {self.url} failed")
        try:
            return self._response(request, config)
        except BaseException:
            self._refused.set()
            raise

    def _response(self, request: Request, config: GenerationConfig) -> str:
        body = json.dumps(self._body(request, config)).encode()
        wait, reason = self.first_wait, ""
        for attempt in range(self.retries + 1):
            try:
                text, ended = _text(call(f"{self.url}/chat/completions", self.timeout, body))
                if not ended:
                    self._warn_of_reasoning()
                return text
            except _PassingError as error:
                reason = str(error)
                log.info("Attempt %d for sample %s: %s", attempt + 1, request.sample_id, reason)
                pause = min(error.after if error.after is not None else wait, LONGEST_WAIT)
                if attempt == self.retries or self._stop.wait(pause):
                    break
                wait *= 2
        raise EndpointError(
            f"endpoint: {self.url} gave no answer to sample {request.sample_id!r} in "
            f"{self.retries + 1} attempts ({reason}). Answers so far are saved: correct the "
            f"server, or give a longer --timeout or fewer --concurrency, and run the command again"
        )

    def _warn_of_reasoning(self) -> None:
        """Warn once that the token limit cut a model's reasoning."""
        if not self._warned:
            self._warned = True
            log.warning(CUT)

    def _body(self, request: Request, config: GenerationConfig) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _url(image)}} for image in request.images
        ]
        content.append({"type": "text", "text": request.prompt})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": config.max_new_tokens,
            "temperature": 0,
        }
        if config.min_new_tokens:
            body["min_tokens"] = config.min_new_tokens  # of vLLM and SGLang
        if self.template:
            body["chat_template_kwargs"] = dict(self.template)
        return body


def connect(url: str, model: str = "", timeout: float = 120.0, **settings: Any) -> ChatEndpoint:
    """A server's model, the first that it lists where none is named; EndpointError for no server.

    url: http://HOST:PORT/v1; /v1 is added where it is missing.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"endpoint: {url!r} is not a URL; write http://127.0.0.1:8080/v1")
    url = url.rstrip("/")
    url = url if url.rsplit("/", 1)[-1].startswith("v") else f"{url}/v1"
    try:
        listed = [str(each["id"]) for each in call(f"{url}/models", timeout)["data"]]
    except (_PassingError, KeyError, TypeError) as error:
        raise EndpointError(
            f"endpoint: {url} does not respond ({error}). Start the server, e.g. `vllm serve "
            f"FOLDER` or `llama-server -m MODEL --mmproj MMPROJ`, and give its URL with /v1"
        ) from error
    if model and listed and model not in listed:
        raise EndpointError(f"endpoint: {url} does not serve {model!r}; it serves {listed}")
    if not model and not listed:
        raise EndpointError(f"endpoint: {url} lists no model; name one with --endpoint-model")
    return ChatEndpoint(url, model or listed[0], timeout=timeout, **settings)


def check_decoding(config: GenerationConfig) -> None:
    """InputError for what the protocol cannot ask for."""
    if config.num_beams != 1:
        raise InputError(
            f"num_beams: {config.num_beams}, but servers decode greedily; give --num-beams 1"
        )


def call(url: str, timeout: float, body: bytes | None = None) -> Any:
    """JSON that a server answers with; EndpointError for a refusal."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    try:
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read(SHOWN).decode(errors="replace")
        if error.code in PASSING:
            raise _PassingError(f"HTTP {error.code} {text}", _seconds(error.headers)) from error
        raise EndpointError(f"endpoint: {url} responds with HTTP {error.code}: {text}") from error
    except (OSError, ValueError, HTTPException) as error:  # refused, reset, timed out, cut off
        raise _PassingError(f"{type(error).__name__}: {error}") from error


def _seconds(headers: Message) -> float | None:
    """How long the server asks to wait."""
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, TypeError, ValueError):
        return None


def _text(answer: Any) -> tuple[str, bool]:
    """A response's text without its reasoning, and whether the reasoning ended."""
    try:
        message = answer["choices"][0]["message"]
        text = _joined(message["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise _PassingError(f"a response without text: {str(answer)[:SHOWN]}") from error
    answered, ended = without_reasoning(text)
    if not text and any(message.get(name) for name in REASONING):
        ended = False
    return text if answered == text else answered.strip(), ended


def _joined(content: Any) -> str:
    """A message's text, which some servers split into parts; TypeError for anything else."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"{type(content).__name__} is not text")
    return content or ""
