"""SIGINT and SIGTERM: raised once, again when lost, held back where nothing may end halfway."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10  # seconds after an interrupt in which further signals count as the same
AGAIN = 0.05  # seconds after which an interrupt that got lost is repeated


class Interrupt:
    """A signal handler that raises KeyboardInterrupt, once for signals that come together.

    `mmq` under `mlflow run` gets two, one from the terminal and one from MLflow; the second must
    not hurt the cleaning up. Python drops what is raised while it calls a finalizer or a weak
    reference's callback: then the interrupt is repeated.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; only in the main thread."""
        for each in SIGNALS:
            signal.signal(each, self)
        report = sys.unraisablehook

        def unraisable(lost: "sys.UnraisableHookArgs") -> None:
            if lost.exc_type is not KeyboardInterrupt:
                report(lost)
                return
            self._last = -math.inf
            timer = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT))
            timer.daemon = True
            timer.start()

        sys.unraisablehook = unraisable

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last > PATIENCE:
            self._last = now
            raise KeyboardInterrupt


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back: what is computed is logged and told before they count.

    By handlers, not by a mask: the system gives a signal that one thread blocks to another one,
    and Python handles it in the main thread all the same. In other threads there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _deferred(signal.SIGINT), _deferred(signal.SIGTERM):
        yield


@contextmanager
def _deferred(signum: int) -> Iterator[None]:
    came = []
    before = signal.getsignal(signum)
    if before is None:  # a handler that is not Python's could not be put back
        yield
        return
    try:
        signal.signal(signum, lambda *_: came.append(signum))
        yield
    finally:
        signal.signal(signum, before)
        if came:
            signal.raise_signal(signum)
