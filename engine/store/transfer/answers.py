"""Read what another machine says when it says no. Knows no network."""

from __future__ import annotations

import json

import httpx

from .errors import NotPublished, Refused

_SHOWN_CHARS = 300  # registries explain themselves in a line or two


def check_answer(response: httpx.Response, what: str) -> None:
    """Accept a 2xx; of anything else the body must have been read.

    Raises:
        NotPublished: 404, 410.
        Refused: every other one.
    """
    if response.status_code in (404, 410):
        raise NotPublished(what)
    if not response.is_success:
        host = response.url.netloc.decode("ascii")
        raise Refused(host, response.status_code, said(response.text))


def said(text: str) -> str:
    """Give an error's sentence: registries put it into JSON, others into a page or a line.

    >>> said('{"errors":[{"code":"DENIED","message":"not yours"}]}'), said("<html>"), said("no")
    ('not yours', '', 'no')
    """
    try:
        told = json.loads(text)
    except ValueError:
        return "" if "<" in text else " ".join(text[: 4 * _SHOWN_CHARS].split())[:_SHOWN_CHARS]
    try:
        first = told["errors"][0] if "errors" in told else told
        message = first.get("message") or first.get("error") or first.get("details") or ""
    except (LookupError, TypeError, AttributeError):
        return ""
    return str(message)[:_SHOWN_CHARS]
