"""Rows of cells as a Markdown table: the one form in which tables reach a model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]]) -> str:
    r"""Write rows as a table, the first as its header; empty columns and empty rows are left out.

    >>> print(table([["Item", "Price"], ["Slates\nred", "5|6"]]))
    | Item | Price |
    | --- | --- |
    | Slates red | 5\|6 |
    """
    kept = [list(row) for row in rows if any(cell.strip() for cell in row)]
    if not kept:
        return ""
    width = max(map(len, kept))
    filled = [row + [""] * (width - len(row)) for row in kept]
    used = [any(row[column].strip() for row in filled) for column in range(width)]
    lines = [
        _row(cell for cell, is_used in zip(row, used, strict=True) if is_used) for row in filled
    ]
    rule = _row("---" for is_used in used if is_used)
    return "\n".join([lines[0], rule, *lines[1:]])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
