"""Other processes and machines for tests."""

import multiprocessing
import os

from test_study import open_study

import mmq.system.process


def process(work, *arguments):
    """Run a function in another process; forked, so that nothing is imported again."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    return child


def killed_elsewhere(folder):
    """Kill a process of another machine in the middle of a trial; returns the pending trial."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work():
        mmq.system.process.host = lambda: "elsewhere"
        sender.send(str(open_study(folder, folder.name).ask().allocation))
        os.kill(os.getpid(), 9)

    child = process(work)
    child.join()
    assert child.exitcode == -9
    return receiver.recv()
