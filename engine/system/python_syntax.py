"""Parse Python, in one thread at a time.

CPython 3.11 counts the depth of all trees that are being made in one place: two threads that parse
at once may end with "AST constructor recursion depth mismatch", a `SystemError`.
"""

from __future__ import annotations

import ast
import threading

_PARSING = threading.Lock()


def parse_module(source: str | bytes) -> ast.Module:
    with _PARSING:
        return ast.parse(source)


def parse_expression(text: str) -> ast.expr:
    with _PARSING:
        return ast.parse(text, mode="eval").body
