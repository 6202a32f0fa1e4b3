"""`--resume RUN`: which pipeline an earlier run was of, and what it was given."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exits import CommandError

if TYPE_CHECKING:
    from paddock.runner.history.past import Past


def resumed(
    name: str, file: Path | None, by_hand: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    """Give a run's pipeline and inputs; what is given by hand now goes before.

    Raises:
        CommandError: there is no such run; or what it was given is not known any more.
    """
    past = _found(name, file)
    path = file or past.place.folder / past.row.file
    if past.row.given is None:
        raise CommandError(
            f"Run '{name}' was made by an older Paddock, which kept no inputs.\n"
            f"  Give them: `paddock run {path} -i …`; what is finished stays finished."
        )
    given = json.loads(past.row.given)
    missing = [name for name in given["hidden"] if name not in by_hand]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        options = " ".join(f"-i {name}=…" for name in missing)
        raise CommandError(
            f"Run '{name}' was given {names}, which is secret and kept nowhere.\n"
            f"  Give it again: `paddock run --resume {name} {options}`."
        )
    return path, {**given["inputs"], **by_hand}


def _found(name: str, file: Path | None) -> Past:
    from paddock.runner.history.past import named, names
    from paddock.runner.history.places import places

    where = places([file if file is not None else Path()])
    found = named(where, name)
    if found.runs:
        return found.runs[0]
    if found.faults:
        raise CommandError(found.faults[0])
    near = difflib.get_close_matches(name, names(where), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "`paddock runs` lists those there are."
    raise CommandError(f"There is no run '{name}' here.\n  {hint}")
