"""Processes on this machine satisfy the contract of launchers."""

from mmq_plugins.launchers.local import Local

from mmq.testing import LauncherContract


class TestLocal(LauncherContract):
    def make(self):
        return Local()
