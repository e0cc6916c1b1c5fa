"""Real `mmq` processes that start at once: forked from one that has imported the libraries.

Importing torch, mlflow and transformers takes six CPU seconds, and the tests start dozens of
processes. A forked one has its own pid, signals, environment, working folder and output. The few
tests that start Python cover what a process imports itself.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from repeatable import without_waiting_for_the_disk

IMPORTED = (
    "matplotlib.pyplot", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "mmq.cli.trial",
    "mmq_search.run", "pandas", "scipy.optimize", "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.llava.modeling_llava",
)  # fmt: skip


class ForkServer:
    """Starts `mmq` processes; close it at the end."""

    def __init__(self, folder: Path):
        self.address = str(folder / "fork.socket")
        self.process = subprocess.Popen(
            [sys.executable, __file__, self.address],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n", "the fork server did not start"

    def start(self, *arguments, cwd, env, script=None):
        """A process that runs `mmq arguments`, or a Python script; both outputs are one text."""
        output = Reader()
        request = {"arguments": arguments, "cwd": cwd, "env": env, "script": script}
        return ForkedProcess(self._send(request, [output, output]), output)

    def run(self, *arguments, cwd, env, script=None, timeout=900):
        """Like subprocess.run(capture_output=True, text=True)."""
        output, errors = Reader(), Reader()
        request = {"arguments": arguments, "cwd": cwd, "env": env, "script": script}
        process = ForkedProcess(self._send(request, [output, errors]), output)
        text, _ = process.communicate(timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, text, errors.read())

    def _send(self, request, outputs):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        socket.send_fds(connection, [b"."], [output.descriptor for output in outputs])
        connection.sendall(json.dumps(request, default=str).encode() + b"\n")
        for output in dict.fromkeys(outputs):
            os.close(output.descriptor)
        return connection

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Reader:
    """The text that a process writes, read while it runs."""

    def __init__(self):
        self._end, self.descriptor = os.pipe()
        self._parts = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        with os.fdopen(self._end, errors="replace") as file:
            self._parts.append(file.read())

    def read(self):
        """All text, once the process and its children have ended."""
        self._thread.join()
        return "".join(self._parts)


class ForkedProcess:
    """A started process, with what the tests use of subprocess.Popen."""

    def __init__(self, connection, output):
        self._connection = connection
        self._replies = connection.makefile()
        self._output = output
        self.pid = int(self._replies.readline())
        self.returncode = None

    def poll(self):
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            self._connection.settimeout(timeout)
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self._output.read(), None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def serve(address):
    """Fork a process per request, and report its pid and how it ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    without_waiting_for_the_disk()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        with connection.makefile() as file:
            request = json.loads(file.readline())
        pid = os.fork()
        if pid == 0:
            listener.close()
            connection.close()
            run(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(b"%d\n" % pid)
        threading.Thread(target=report_end, args=(pid, connection), daemon=True).start()


def report_end(pid, connection):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with connection:
        connection.sendall(b"%d\n" % code)


def run(request, descriptors):
    """Run the requested command in this forked process, and end it."""
    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["script"] or "mmq", *request["arguments"]]
    code = 0
    try:
        if request["script"]:
            sys.path.insert(0, str(Path(request["script"]).parent))
            runpy.run_path(request["script"], run_name="__main__")
        else:
            importlib.import_module("mmq.cli").main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        run_exit_handlers()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_exit_handlers():
    """Run what a Python process runs when it ends."""
    threading._shutdown()
    atexit._run_exitfuncs()


if __name__ == "__main__":
    serve(sys.argv[1])
