"""What stands between steps and the world while a test is recorded or replayed: the contract.

Knows no test. `runner/trials/` has the one there is.
"""

from __future__ import annotations

from typing import Protocol

from paddock.steps.toolset import Memo, Toolset


class Taping(Protocol):
    """Records what tools and commands give, or gives what was recorded."""

    def toolset(self, inner: Toolset) -> Toolset:
        """Give the tools of a step."""
        ...

    def memo(self, inner: Memo) -> Memo:
        """Give the ledger of a step's other calls."""
        ...
