"""Verdicts on items: how a comparison found them, and what a run is asked to do with them."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, unique
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Reason, in_words

if TYPE_CHECKING:
    pass


@unique
class Case(Enum):
    """What decided on an item, by the numbers of `verify` and `permit`."""

    NEW = "verify 1"
    PARTS = "verify 2"
    FAILED = "verify 3"
    WAITS = "verify 4: it is open"
    DECIDED = "verify 4: a person has decided; permit 5"
    GIVEN_UP = "verify 5"
    DEPENDENCY = "verify 6"
    LOSS = "verify 7"
    EDITED = "verify 8"
    HANDED_OVER = "verify 9; permit 6"
    FRESH = "verify 10"
    SHARED = "permit 1"
    REQUESTED = "permit 3, 4"
    TAKEN = "permit 6"
    NOT_REQUESTED = "permit 7"


FINAL = frozenset((Case.NEW, Case.PARTS, Case.FAILED))
"""What it depended on was not looked at, and no option changes what is to do."""


class ItemVerdict(Struct, frozen=True):
    """State of an item, why, and which case decided."""

    state: ItemState
    reasons: tuple[Reason, ...] = ()
    case: Case = Case.NEW
    edited_paths: tuple[str, ...] = ()
    """Stored paths of its edited outputs, which stay."""

    @property
    def why(self) -> str | None:
        return in_words(self.reasons)

    @property
    def is_work(self) -> bool:
        return self.state in WORK

    @property
    def is_up_to_date(self) -> bool:
        return self.state in (ItemState.FRESH, ItemState.HELD)

    @property
    def is_remade(self) -> bool:
        """Whether only outputs of the item are made again, without a call."""
        return self.case in (Case.LOSS, Case.TAKEN)


NEW, FRESH = ItemVerdict(ItemState.NEW), ItemVerdict(ItemState.FRESH, case=Case.FRESH)


class ItemRequest(Struct, frozen=True):
    """What a run is asked to do with the items of a block, or with a step outside of blocks."""

    keys: Collection[str] | None = None
    """Those of `only` or the sample; None: all."""
    is_forced: bool = False
    takes_over: bool = False
    """Whether edited outputs of what is asked for are replaced."""
    overwrites: bool = False
    """Whether the steps themselves replace edited outputs."""
    retries_failed: bool = False
    is_of_step: bool = False
    """Whether it is a step outside of blocks, which each run tries again."""
    asks_people: bool = True
    not_requested: ItemVerdict = FRESH
    """Verdict on an item that is not asked for, and has work to do."""
    is_of_variant: bool = False
    """Whether figures are of the items that are asked for alone, also where more is known."""
    job_runs: frozenset[str] = frozenset()
    """The runs of the same job: this one, and those before a crash."""

    def asks_for(self, key: str) -> bool:
        return self.keys is None or key in self.keys

    @property
    def concerns_fresh(self) -> bool:
        """Whether `permit` may decide otherwise of an item that is as its trace says."""
        is_of_some = self.keys is not None or self.is_of_variant
        return is_of_some or self.is_forced or self.retries_failed or bool(self.job_runs)
