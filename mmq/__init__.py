"""mmq finds where the bits of a vision-language model belong."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mmq")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
