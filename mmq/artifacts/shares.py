"""The blocks of a component that a process computes, where several processes share them."""

from collections.abc import Callable
from typing import Protocol


class BlockShare(Protocol):
    """Assigns blocks, by their number in a component."""

    def claim(self, number: int) -> bool:
        """Whether to compute this block here; no other process does until this one ends."""

    def complete(self, number: int) -> None:
        """Report that a claimed block is stored at every width."""

    def after(self, first: int) -> "BlockShare":
        """The same share, with numbers counted from a later block."""


class WholeShare:
    """Every block: this process shares with no other."""

    def claim(self, number: int) -> bool:
        """True: every block is computed here."""
        return True

    def complete(self, number: int) -> None:
        """Do nothing: no process waits for it."""

    def after(self, first: int) -> BlockShare:
        """The same share: it needs no numbers."""
        return self


class ClaimedBlocks:
    """The blocks that a work list assigns. Both functions receive a block of the component."""

    def __init__(
        self,
        claim_block: Callable[[int], bool],
        complete_block: Callable[[int], None],
        first: int = 0,
    ) -> None:
        self._claim, self._complete, self._first = claim_block, complete_block, first

    def claim(self, number: int) -> bool:
        """Whether the work list gives this block to this process."""
        return self._claim(self._first + number)

    def complete(self, number: int) -> None:
        """Mark it as done in the work list."""
        self._complete(self._first + number)

    def after(self, first: int) -> BlockShare:
        """The same blocks, counted from a later one."""
        return ClaimedBlocks(self._claim, self._complete, self._first + first)
