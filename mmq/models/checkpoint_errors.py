"""Turn library errors while reading a model into InputErrors that name it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmq.errors import InputError

LONGEST = 300  # characters: some messages list every model
# words of torch's errors about sizes
SIZES = re.compile(r"\b(sizes?|shapes?|dimensions?|match|number of elements)\b", re.IGNORECASE)
OWN_CODE = (
    "it needs code of its own, which mmq does not run: give the model in the format of "
    "transformers, whose hub name often ends in -hf"
)
log = logging.getLogger(__name__)


@contextmanager
def reading(message: str, advice: str = "") -> Iterator[None]:
    """InputError for any error inside: "MESSAGE (reason). ADVICE"; the original is its cause.

    transformers, tokenizers and safetensors guarantee no error classes for damaged files.
    Interrupts, MemoryErrors and mmq's own failed assertions pass through.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not _from_a_library(error):
            raise
        log.info("%s", message, exc_info=error)
        raise InputError(
            f"{message} ({reason(error)})" + (f". {advice}" if advice else "")
        ) from error


@contextmanager
def answering(sample: str) -> Iterator[None]:
    """InputError if transformers or torch find that a model's inputs do not fit its sizes.

    sample: its id. Errors of devices and memory pass through.
    """
    try:
        yield
    except (ValueError, IndexError, TypeError, RuntimeError) as error:
        of_sizes = not isinstance(error, RuntimeError) or SIZES.search(str(error))
        if not of_sizes or not _source(error).startswith(("transformers", "torch")):
            raise
        log.info("Sample %s cannot be answered", sample, exc_info=error)
        raise InputError(
            f"model: the unquantized model cannot answer sample {sample!r} ({reason(error)}). "
            f"Check the sizes in its config.json and its processor's settings: they contradict "
            f"each other"
        ) from error


def reason(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kind = type(error).__name__
    if "trust_remote_code" in str(error):
        return OWN_CODE
    if not text:
        return kind
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    # the class helps: a KeyError's message is just the key
    return text if isinstance(error, (OSError, ValueError)) else f"{kind}: {text}"


def _source(error: BaseException) -> str:
    """The module that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")) if trace else ""


def _from_a_library(error: BaseException) -> bool:
    if isinstance(error, AssertionError):
        return not _source(error).startswith(("mmq.", "mmq_"))
    # a panic in Rust code (tokenizers, safetensors) does not derive from Exception
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
