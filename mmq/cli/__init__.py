"""The `mmq` command."""

from mmq.cli.main import main

__all__ = ["main"]
