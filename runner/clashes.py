"""Two items that would write the same file are a fault before anything is written.

Only paths that are known beforehand are looked at here; the others are caught when they are
about to be written (`outputs`).
"""

from __future__ import annotations

from .bind import BoundBlock
from .outputs import Index
from .scope import Scope
from .work import BlockWork


def refuse_clashes(block: BoundBlock, work: BlockWork, scope: Scope, index: Index) -> None:
    """Compare the files that the items to do would write.

    Raises:
        PipelineError: two of them are the same.
    """
