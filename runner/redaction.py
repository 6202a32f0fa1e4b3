"""Keep secrets out of all that is shown or stored: found in texts however they are written there.

Knows no pipeline.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

# A shorter value would take words out of every text.
SHORTEST = 4
# What stands in a line of its own of a longer secret, such as a key in PEM.
_SHORTEST_LINE = 16


def redactor(secrets: Mapping[str, str]) -> Callable[[str], str]:
    """Give what puts `***` in place of every secret in a text.

    >>> redactor({"key": "s3cr3t/1"})("GET /?k=s3cr3t%2F1 with s3cr3t/1")
    'GET /?k=*** with ***'
    """
    forms = {form for value in secrets.values() for form in _forms(value)}
    if not forms:
        return _same
    # The longest first: one secret may begin another.
    any_of = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    return lambda text: any_of.sub("***", text)


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Give plain data with every text in it redacted, names of members too."""
    if redact is _same:
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): redacted(item, redact) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, redact) for item in value]
    return value


def nothing_to_hide() -> Callable[[str], str]:
    """Give what leaves every text as it is."""
    return _same


def _same(text: str) -> str:
    return text


def _forms(value: str) -> Iterator[str]:
    """Give the ways in which a value may stand in a text."""
    lines = [line.strip() for line in value.splitlines()]
    for part in (value, value.strip(), *(one for one in lines if len(one) >= _SHORTEST_LINE)):
        if len(part) < SHORTEST:
            continue
        yield part
        yield json.dumps(part)[1:-1]
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        yield repr(part)[1:-1]
        yield quote(part, safe="")
        yield quote(part)
        yield quote_plus(part)
        yield base64.b64encode(part.encode()).decode()
