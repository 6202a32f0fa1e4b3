"""`paddock setup --undo`: take back what it wrote, but leave a file that was edited since.

A file is as it was written if the digest in its block says so (`setup_files`); nothing is recorded
elsewhere. What a unit reads that stays, stays with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .setup_files import ManagedFile
from .setup_plan import SetupPlace, SetupPlan, one_line
from .systemd_unit import UNIT_NAME, key_file_of


def undo_plan(place: SetupPlace) -> SetupPlan:
    unit = ManagedFile.read(place.unit)
    is_gone = unit.is_own or not os.path.lexists(place.unit)
    own_keys = key_file_of(unit.text or "")
    keys = (own_keys or place.keys).resolve()
    needed = [] if is_gone else [place.settings_file, *([keys] if own_keys else [])]
    paths = dict.fromkeys((place.unit, place.settings_file, keys, place.keys.resolve()))
    # The plan to take the blocks out of files, but for those that stay
    found = map(ManagedFile.read, paths)
    ours = [file for file in found if file.state != "absent"]
    left = {file.path: why for file in ours if (why := _why_left(file, place, needed))}
    changes = (file.removed() for file in ours if file.path not in left)
    words = (f"leave {path}: {why}" for path, why in left.items())
    plan = SetupPlan(changes=tuple(changes), left=tuple(words))
    if is_gone and not (unit.is_own and place.is_managed):
        plan = replace(plan, changes=(*plan.changes, *place.link_changes()))
    return _with_the_end(plan, place) if unit.is_own else plan


def _why_left(file: ManagedFile, place: SetupPlace, needed: Sequence[Path]) -> str:
    """Return why an undo leaves a file as it is; empty: it does not."""
    if file.state == "edited" or (file.path == place.unit and not file.is_own):
        return "it was edited since `paddock setup` wrote it"
    return "the unit that stays reads it" if file.path in needed else ""


def _with_the_end(plan: SetupPlan, place: SetupPlace) -> SetupPlan:
    reload = place.systemctl("daemon-reload")
    if place.is_managed:
        end = place.systemctl("disable", "--now", UNIT_NAME)
        return replace(plan, before=(end,), after=(reload,))
    closing = (
        "No systemd answers here, so a service that runs was not stopped. Where one does:\n  "
        + one_line(place.systemctl("stop", UNIT_NAME), reload)
    )
    return replace(plan, closing=(closing,), is_whole=place.manager == "offline")
