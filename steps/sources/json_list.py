"""A list of documents that a server has as JSON, in pages, as a source."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any
from urllib.parse import quote, urljoin

from pydantic import Field

from paddock.steps.base import StepError

from .fetching import answer_of, fetch_in_order, known_end
from .mirror import (
    Answer,
    Gone,
    Source,
    SourceAway,
    SourceDocument,
    SourceListing,
    SourceParams,
    SourceRefused,
)

_MOST_PAGE_BYTES = 64 * 1024**2


class JsonListParams(SourceParams):
    """Documents that a server lists as JSON, in pages. `{field}` is a field of a document."""

    url: str = Field(min_length=1, description="The list.")
    hosts: list[str] = Field(min_length=1, description="The only servers that are asked.")
    headers: dict[str, str] = Field(default={}, description="Such as `Authorization`.")
    items: str = Field(default="", description="A page's list; empty: the page is one.")
    next: str = Field(default="", description="The field with the next page's address.")
    id: str = Field(default="{id}", description="What names a document for ever.")
    version: str = Field(default="", description="With another one it is fetched again.")
    path: str = Field(default="{name}", description="Of its copy, such as `{id}/{name}`.")
    contents: str = Field(description="Its address.")

    kind = "listing"

    @property
    def address(self) -> str:
        return self.url

    def opened(self, credential: str) -> AbstractContextManager[Source]:
        http_fetch = import_module("paddock.steps.tools.http_fetch")  # it needs httpx
        return nullcontext(JsonList(self, http_fetch))


class JsonList(Source):
    """Blocks; used by one thread at a time."""

    is_web = True

    def __init__(self, params: JsonListParams, http_fetch: Any) -> None:
        super().__init__()
        self._params, self._http = params, http_fetch
        self._addresses: dict[str, str] = {}

    def listing(self, cursor: str) -> SourceListing:
        given, documents = self._params, dict[str, SourceDocument]()
        request = self._http.FetchRequest(given.url, given.hosts, _MOST_PAGE_BYTES, given.headers)
        rows = _answer(self._http.fetch_rows(request, given.items, given.next))
        if not isinstance(rows, list):
            raise SourceRefused(f"does not list its documents: {rows.text}".rstrip("."))
        for row in rows:
            try:
                identity, name, version = (
                    text.format_map(row) for text in (given.id, given.path, given.version)
                )
                parts = {name: quote(f"{part}", safe="") for name, part in row.items()}
                address = urljoin(given.url, given.contents.format_map(parts))
            except (LookupError, AttributeError, TypeError, ValueError) as error:
                what = f"lists a document without what `{{…}}` names: {error}"
                raise SourceRefused(what, "Correct `id`, `path`, `version`, `contents`.") from error
            document = SourceDocument(identity, posixpath.normpath(name), 0, version)
            known = documents.setdefault(identity, document)  # a page may repeat the one before
            if self._addresses.setdefault(identity, address) != address or known != document:
                names = f"'{known.name}' and '{document.name}' as '{identity}'"
                raise SourceRefused(f"lists two documents, {names}", "Correct `id`.")
        return SourceListing("", [*documents.values()])

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        return fetch_in_order(identities, self._content, self._params.max_bytes, {})

    def _content(self, identity: str, most_bytes: int) -> Answer:
        given, address = self._params, self._addresses.get(identity)
        if address is None:  # the list is read to its end
            return Gone()
        request = self._http.FetchRequest(address, given.hosts, most_bytes, given.headers)
        try:
            fetched = _answer(self._http.fetch_bytes(request))
        except self._http.NotFetched as error:
            raise SourceRefused(f"{error}") from error
        if (status := fetched.answer.status_code) == 200:
            whole_by = known_end(fetched.answer.headers, fetched.body)
            return answer_of(fetched.body, whole_by, most_bytes)
        is_its_own = 400 <= status < 500 and status not in (401, 408, 429)
        why = f"'{address}' answers with status {status}"
        raise SourceRefused(why) if is_its_own else SourceAway(why)


def _answer(request: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(request)
    except StepError as error:
        raise SourceAway(error.reason.rstrip(".")) from error
