"""Finds code of a task that asks a model on the network, downloads, or starts a program."""

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

JUDGES = (
    "anthropic", "dashscope", "google.genai", "google.generativeai", "httpx", "litellm",
    "lmms_eval.llm_judge", "lmms_eval.verifiers", "openai", "requests", "urllib3",
)  # fmt: skip
DOWNLOADS = ("datasets.load", "gdown", "huggingface_hub")
OWN = "lmms_eval"


def judge_of(function: Any) -> str:
    """The package through which a task's function asks another model; "" if it asks no other."""
    return next((module for module in _used(function, set()) if _starts(module, JUDGES)), "")


def download_of(function: Any) -> str:
    """The package with which a task's function downloads other data than its own; "" if none."""
    return next((module for module in _used(function, set()) if _starts(module, DOWNLOADS)), "")


def is_caption_metric(function: Any) -> bool:
    """Whether a function scores captions with pycocoevalcap, which starts Java programs."""
    return any(_starts(module, ("pycocoevalcap",)) for module in _used(function, set()))


def _starts(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def _used(function: Any, visited: set[CodeType]) -> Iterator[str]:
    """The modules of what a function refers to, through functions of the task's own module."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or function.__code__ in visited:
        return
    visited.add(function.__code__)
    for name, imported in _references(function.__code__):
        if imported:
            yield name
            continue
        value = function.__globals__.get(name)
        yield _module_of(value)
        home = getattr(value, "__module__", "") or ""
        if home == function.__module__ or _starts(home, (f"{OWN}.tasks",)):
            for part in vars(value).values() if isinstance(value, type) else (value,):
                yield from _used(part, visited)


def _references(code: CodeType) -> Iterator[tuple[str, bool]]:
    """The global names that code reads, and the modules that it imports."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield str(instruction.argval), True
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval), False
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _references(constant)


def _module_of(value: Any) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    own = getattr(value, "__module__", None)
    return own if isinstance(own, str) else type(value).__module__
