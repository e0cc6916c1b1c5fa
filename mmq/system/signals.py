"""SIGINT, SIGTERM and SIGUSR1: raised once, repeated if lost, deferred where they would harm."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # SIGUSR1: as schedulers warn
WAKE = signal.SIGURG  # ignored by default, and sent by sockets alone
PATIENCE = 10  # seconds in which further signals count as the same interrupt
AGAIN = 0.05  # delay in seconds before a lost interrupt is repeated


class Interrupt:
    """A signal handler that raises KeyboardInterrupt once per burst of signals.

    Under `mlflow run`, mmq gets two, one from the terminal and one from MLflow; the second must
    not interrupt the cleanup. Python drops exceptions raised inside a finalizer or a weak
    reference's callback: the interrupt is then repeated.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def install(self) -> None:
        """Handle these signals from now on; only in the main thread."""
        for signum in SIGNALS:
            signal.signal(signum, self)
        report = sys.unraisablehook

        def unraisable(details: "sys.UnraisableHookArgs") -> None:
            if details.exc_type is not KeyboardInterrupt:
                report(details)
                return
            self._last = -math.inf
            timer = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT))
            timer.daemon = True
            timer.start()

        sys.unraisablehook = unraisable
        _wake_main_thread()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless one was raised a moment ago."""
        now = time.monotonic()
        if now - self._last > PATIENCE:
            self._last = now
            raise KeyboardInterrupt


_waking: set[int] = set()  # ids of processes, as a forked one has none of its parent's threads


def _wake_main_thread() -> None:
    """Interrupt the main thread's system call at each signal, whichever thread the signal reaches.

    Of several signals at once, some reach other threads. Python's handlers run in the main thread
    only, which would first finish what it waits for: a lock, a server's response.
    """
    if os.getpid() in _waking:
        return
    _waking.add(os.getpid())
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(WAKE, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    main_thread = threading.get_ident()

    def watch() -> None:
        while number := os.read(reader, 1):
            for pause in () if number[0] == WAKE else (0, AGAIN):  # again: its call began just now
                time.sleep(pause)
                signal.pthread_kill(main_thread, WAKE)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Defer interrupts until this block ends, unless the user presses Ctrl-C again 10 s later.

    For computed results until they are saved and logged, and for calls to a database: SQLAlchemy
    leaves the transaction open if its own clean-up is interrupted, and the connection then keeps
    its locks, for which the commands that end a run would wait.

    Uses handlers, not a mask: a signal that one thread blocks is delivered to another, and Python
    still handles it in the main thread. In other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as stack:
        for signum in SIGNALS:
            stack.enter_context(_deferred(signum))
        yield


@contextmanager
def _deferred(signum: int) -> Iterator[None]:
    received: list[float] = []
    previous = signal.getsignal(signum)
    if previous is None:  # a handler that was not set from Python cannot be restored
        yield
        return

    def receive(*_: object) -> None:
        received.append(time.monotonic())
        if signum == signal.SIGINT and received[-1] - received[0] > PATIENCE:
            raise KeyboardInterrupt

    try:
        signal.signal(signum, receive)
        yield
    finally:
        signal.signal(signum, previous)
        if received:
            signal.raise_signal(signum)
