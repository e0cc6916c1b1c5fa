"""Whatever a library raises while it reads somebody's model becomes bad input with a name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmq.errors import InputError

LONGEST = 300  # some list every model that there is
log = logging.getLogger(__name__)


@contextmanager
def reading(said: str, advice: str = "") -> Iterator[None]:
    """InputError for every error inside: "SAID (reason). ADVICE"; the original is its cause.

    transformers, tokenizers and safetensors promise no error classes for damaged files. Interrupts
    and a lack of memory pass, and so do our own failed assertions.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not _from_a_library(error):
            raise
        log.info("%s", said, exc_info=error)
        raise InputError(
            f"{said} ({reason(error)})" + (f". {advice}" if advice else "")
        ) from error


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kind = type(error).__name__
    if not text:
        return kind
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    # a KeyError says 'rope', an AssertionError often half a sentence
    return text if isinstance(error, (OSError, ValueError)) else f"{kind}: {text}"


def _from_a_library(error: BaseException) -> bool:
    if isinstance(error, AssertionError):
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        module = str(trace.tb_frame.f_globals.get("__name__", "")) if trace else ""
        return not module.startswith(("mmq.", "mmq_"))
    # a panic of Rust code (tokenizers, safetensors) is no Exception
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
