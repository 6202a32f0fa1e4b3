"""Remove what a run that was killed left half written, once the next one has been there.

Knows the ledger's objects and the folders in which the pipeline wrote; what may be removed is
said in `steps.aside`.
"""

from __future__ import annotations

from paddock.steps import aside

from .ledger.outputs import Index


def sweep(index: Index) -> int:
    """Look through every folder that this pipeline wrote into; tells how many files went.

    For the end of a run: by then it has written again whatever the killed one was about to.
    """
    folders = {file.parent for file in index.owned()}
    return index.ledger.objects.sweep() + sum(
        len(aside.sweep(folder)) for folder in sorted(folders)
    )
