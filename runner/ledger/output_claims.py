"""Which item writes a path in this run, or has, and is fresh: no other one may."""

from __future__ import annotations

from paddock.steps.base import StepError


class OutputClaims:
    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, str]] = {}

    def of(self, stored: str) -> tuple[str, str] | None:
        """Return scope and key of the item that claimed a path."""
        return self._claims.get(stored)

    def claim(self, scope: str, key: str, stored: str) -> None:
        """Claim a path for an item that writes it in this run, or has, and is fresh.

        Raises:
            StepError: another item has claimed it.
        """
        claimant = self._claims.setdefault(stored, (scope, key))
        if claimant != (scope, key):
            first, second = sorted((key, claimant[1]))
            who = f"'{first}' and '{second}'" if first != second else f"two blocks, for '{key}',"
            what = f"{who} would write the same file '{stored}'."
            raise StepError(what, remedy="Make the path differ, with `relpath` for example.")
