"""The console: pages at `/ui` on pipelines, runs, models and settings, beside the review page.

`paddock up`, `serve`, `review` and `console` serve it behind the review page's tokens, keys and
sessions. Pages are HTML that the server writes, in the style of reports; those of running work are
sent again by server-sent events when they change. They load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route

from paddock.engine.api.api_keys import STATE_PATH
from paddock.engine.api.errors import ClientGone
from paddock.engine.api.server import STOPPING
from paddock.engine.api.streaming import SSE, sse_event, sse_response
from paddock.engine.system import units
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.tasks import in_left_thread, wait_for_event
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner import api
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.trust.permissions import permission_names, permission_needs
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.daemon.service_client import ServiceError, trigger_text
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.run_history import LedgerFolder, PastRun, recent_runs
from paddock.runner.render.console_page import CONSOLE_PAGES, PAGE_HEADERS, style_and_script
from paddock.runner.render.html_page import render
from paddock.runner.review.page_access import CONSOLE_PATH, AccessRefused, PageAccess, read_form
from paddock.runner.schedule.discovery import FileStamp, PipelineFinder
from paddock.runner.settings import STATE_FOLDER

from .arguments import has_steps
from .console_actions import ConsoleActions, ConsoleSources, Form, pipeline_page
from .console_model_page import SpeedHistory, model_page, request_page
from .console_run_pages import (
    KeptReading,
    NotHere,
    PageParts,
    Query,
    RunPages,
    path_id,
    pipeline_address,
    run_path,
)
from .exit_status import status_and_message
from .loaded_models import service_answers
from .setting_rows import setting_rows, value_text

_Found = TypeVar("_Found")
_T = TypeVar("_T")
SIGN_IN = f"{CONSOLE_PATH}/sign-in"
_PIPELINES = CONSOLE_PAGES["Pipelines"]
_LIVE_S = 5
_STATE_S = 5.0  # a service that is slower is named; its page waits for eight
_LIVE_SHARE = 40  # a page that is watched takes at most a fortieth of the time
_MOST_FORM_BYTES = 1024**2
_N_THREADS = 8  # of each kind; they read files, and wait for services
_FREE_S = 20.0
"""How long a request waits for a thread: browsers' users are gone by then."""
_N_SEARCHED = 1_000  # of the latest runs, for the last one of each pipeline
# The pages have forms, whose posts must name their origin.
_HEADERS = {
    **PAGE_HEADERS,
    "Content-Security-Policy": PAGE_HEADERS["Content-Security-Policy"].replace(
        "form-action 'none'", "form-action 'self'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Busy(Exception):
    """No thread became free in time."""


class _Threads:
    """Runs what blocks, in threads of its own: at most so many, for which no process waits.

    The default executor's are for the service that serves the pages: a page that holds one of them
    while it asks that service could wait for itself.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_N_THREADS)

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        try:
            async with asyncio.timeout(_FREE_S):
                await self._free.acquire()
        except TimeoutError:
            raise _Busy(
                f"{_N_THREADS} others are being answered, and none ended in {_FREE_S:g} s. "
                "Try again later."
            ) from None
        try:
            return await in_left_thread(work, *args)
        finally:
            self._free.release()


class WebConsole:
    def __init__(self, access: PageAccess, sources: ConsoleSources) -> None:
        self._access = access
        self._sources = sources
        self._runs = RunPages(sources.folders)
        self._actions = ConsoleActions(sources, self._runs)
        self._reading, self._asking, self._acting = _Threads(), _Threads(), _Threads()
        """Of pages that read files, of those that ask services as well, and of actions."""
        self._turn = threading.Lock()
        """Held while what is kept between calls is read and changed, never over the network."""
        self._up_status: Mapping[str, Any] = {}
        self._own_state: Mapping[str, Any] = {}
        self._speeds: dict[str, SpeedHistory] = {}
        self._finder = PipelineFinder(())
        self._heads: _Heads = {}
        self._pipelines_found = KeptReading(self._find_pipelines)

    def routes(self) -> list[BaseRoute]:
        run = f"{CONSOLE_PAGES['Runs']}/{{place}}/{{run}}"
        pipeline = f"{_PIPELINES}/{{id}}"
        actions = self._actions
        return [
            self._page(_PIPELINES, "Pipelines", self._pipelines),
            self._page(CONSOLE_PAGES["Runs"], "Runs", self._runs.runs),
            self._page(run, "Runs", self._runs.run),
            self._page(f"{run}/item", "Runs", self._runs.item),
            self._page(f"{run}/difference", "Runs", self._runs.difference),
            self._page(CONSOLE_PAGES["Models"], "Models", self._models, self._asking),
            self._page(CONSOLE_PAGES["Requests"], "Requests", self._requests, self._asking),
            self._page(CONSOLE_PAGES["Settings"], "Settings", self._settings),
            self._page(pipeline, "Pipelines", self._pipeline, self._asking),
            self._action(f"{pipeline}/run", "Pipelines", self._file, actions.run),
            self._action(f"{pipeline}/allow", "Pipelines", self._file, actions.allow),
            self._action(f"{pipeline}/pause", "Pipelines", self._file, actions.pause),
            self._action(f"{run}/stop", "Runs", self._runs.past, actions.stop),
            self._action(f"{run}/again", "Runs", self._runs.past, actions.again),
            Route(SIGN_IN, self._sign_in, methods=["GET", "POST"]),
            Route(CONSOLE_PATH, lambda _: RedirectResponse(_PIPELINES)),
            *style_and_script(f"{CONSOLE_PATH}/console"),
        ]

    def _page(
        self, path: str, name: str, build: Callable[..., PageParts], threads: _Threads | None = None
    ) -> BaseRoute:
        def built(request: Request) -> PageParts:
            began = time.thread_time()  # waits cost nothing
            try:
                page = build(*request.path_params.values(), dict(request.query_params))
            except (NotHere, LedgerError, SettingsError) as error:
                body = render("console_message.html", title=name, kind="note", words=str(error))
                return PageParts(name, body, status=404)
            least_s = round(_LIVE_SHARE * (time.thread_time() - began))
            return replace(page, live_s=max(page.live_s, least_s)) if page.live_s else page

        async def shown(request: Request) -> PageParts:
            self._access.reviewer(request)
            if self._sources.up_status is not None:  # the loop's own, not the thread's
                self._up_status = self._sources.up_status()
            if self._sources.own_state is not None and name in ("Models", "Requests"):
                self._own_state = await self._sources.own_state()
            return await (threads or self._reading).run(built, request)

        async def endpoint(request: Request) -> Response:
            try:
                if request.headers.get("accept") != SSE:
                    return _html(name, await shown(request))
                events = _changes(request, partial(shown, request))
                return await sse_response(request, events, lambda _: b"", _HEADERS)
            except AccessRefused as error:
                return _refused(error)
            except _Busy as error:
                return _not_done(name, str(error), 503)
            except ClientGone:
                return Response()

        return Route(path, endpoint)

    def _action(
        self,
        path: str,
        name: str,
        find: Callable[..., _Found],
        act: Callable[[str, Form, _Found], str | PageParts],
    ) -> BaseRoute:
        """Return the route of what changes something.

        `find` returns what the path names, `act` the page to show, or its address.
        """

        def done(by: str, form: Form, names: Iterable[str]) -> str | PageParts:
            return act(by, form, find(*names))

        async def endpoint(request: Request) -> Response:
            try:
                by = self._access.reviewer(request)
                form = await read_form(request, _MOST_FORM_BYTES)
                if form is None:
                    return _not_done(name, "What was sent is too large, or was cut off.", 413)
                shown = await self._acting.run(done, by, form, request.path_params.values())
                if isinstance(shown, PageParts):
                    return _html(name, shown)
                return RedirectResponse(shown, 303, {"Cache-Control": "no-store"})
            except AccessRefused as error:
                return _refused(error)
            except NotHere as error:
                return _not_done(name, str(error), 404)
            except _Busy as error:
                return _not_done(name, str(error), 503)
            except Exception as error:  # whatever ends a command is a message, as in a terminal
                return _not_done(name, status_and_message(error)[1], 409)

        return Route(path, endpoint, methods=["POST"])

    async def _sign_in(self, request: Request) -> Response:
        try:
            entered = await self._access.entered(request)
        except AccessRefused as error:
            return _refused(error)
        if entered is None:  # the form, with a sentence that says where the token is
            try:
                self._access.reviewer(request)
            except AccessRefused as error:
                return _refused(error, 200 if error.needs_token else error.status)
            return RedirectResponse(_PIPELINES)
        # No redirect: the session's cookie does not go with one that another origin began.
        body = Markup('<p><a data-next href="{}">Go on</a></p>').format(_came_from(request))
        answer = _html("", PageParts("Signed in", body))
        answer.raw_headers += [
            header for header in entered.raw_headers if header[0] == b"set-cookie"
        ]
        return answer

    def _pipelines(self, query: Query) -> PageParts:
        last: dict[Path, PastRun] = {}
        found = recent_runs(self._runs.places(), limit=_N_SEARCHED)
        for past in found.runs:
            last.setdefault(past.file.resolve(), past)
        status = self._up_status
        served = self._served()
        heads, own_faults = self._pipelines_found.get()
        faults = {**own_faults, **status.get("faults", {})}
        texts = (text if at in text else f"{at}: {text}" for at, text in faults.items())
        folders = [folder.resolve() for folder in self._sources.folders()]
        root = Path(os.path.commonpath(folders)) if folders else Path()
        rows = [
            {
                "head": head,
                "address": pipeline_address(file),
                "place": os.path.relpath(file, root),
                "last": last.get(file),
                "is_paused": served.get(file, {}).get("is_paused", False),
                "triggers": _triggers_text(served.get(file, {})),
            }
            for file, (_, head) in sorted(heads.items())
        ]
        body = render(
            "console_pipelines.html",
            faults=dict.fromkeys((*found.faults, *texts)),
            rows=rows,
            address=run_path,
            status=status,
            runs=[
                (run, name == "running")
                for name in ("running", "queue")
                for run in status.get(name, ())
            ],
            moment=lambda text: units.local_time(datetime.fromisoformat(text).timestamp()),
        )
        return PageParts("Pipelines", body, _LIVE_S)

    def _find_pipelines(self) -> tuple[_Heads, Mapping[str, str]]:
        """Return what is known of each pipeline, and what is wrong with files and folders."""
        self._finder.folders = sorted({folder.resolve() for folder in self._sources.folders()})
        known = self._heads
        heads = _Heads()
        for file, stamp in self._finder.pipeline_files().items():
            old = known.get(file)
            # The fault of a faulty one may be in another file
            if old is not None and old[0] == stamp and not old[1].n_faults:
                heads[file] = old
            elif has_steps(file):
                heads[file] = stamp, _pipeline_head(file, self._sources.settings.address.url)
        self._heads = heads
        return heads, self._finder.faults()

    def _file(self, id_: str) -> Path:
        heads, _ = self._pipelines_found.get()
        found = next((file for file in heads if path_id(file) == id_), None)
        if found is None:
            raise NotHere("There is no such pipeline: it was moved or removed.")
        return found

    def _pipeline(self, id_: str, query: Query) -> PageParts:
        file = self._file(id_)
        past = recent_runs([LedgerFolder(file.parent / STATE_FOLDER, file.name)], limit=1).runs
        served = self._served().get(file)
        return pipeline_page(self._actions, file, past[0] if past else None, served)

    def _served(self) -> Mapping[Path, Mapping[str, Any]]:
        found = self._up_status.get("pipelines", ())
        return {Path(entry["file"]).resolve(): entry for entry in found}

    def _models(self, query: Query) -> PageParts:
        states, notes = self._service_states()
        with self._turn:
            return model_page(states, self._speeds, notes)

    def _requests(self, query: Query) -> PageParts:
        return request_page(*self._service_states())

    def _service_states(self) -> tuple[Sequence[tuple[str, Mapping[str, Any]]], Sequence[str]]:
        """Return the state of each service by its name, and sentences on those that lack."""
        if self._sources.own_state is not None:
            return [("serve", self._own_state)], ()
        notes: list[str] = []
        own = self._sources.settings
        try:
            with service_answers(own, STATE_PATH, notes.append, _STATE_S) as answers:
                return [(name, state) for name, _, state in answers], notes
        except ServiceError as error:
            return [], [*notes, str(error)]

    def _settings(self, query: Query) -> PageParts:
        found = setting_rows(self._sources.settings)
        rows = [(row.name, value_text(row), row.origin) for row in found]
        return PageParts("Settings", render("console_settings.html", rows=rows))


async def _changes(
    request: Request, shown: Callable[[], Awaitable[PageParts]]
) -> AsyncGenerator[bytes, None]:
    """Yield a page's title and content whenever they change, until it no longer does.

    A session that ends, ends it too: the browser asks again, and has to sign in.
    """
    stopping = getattr(request.state, STOPPING, None) or asyncio.Event()
    last = b""
    page = await shown()
    while True:
        event = sse_event({"title": _title(page), "main": str(page.body)})
        yield b":\n\n" if event == last else event
        last = event
        if not page.live_s:
            yield sse_event("", "end")
        if not page.live_s or await wait_for_event(stopping, page.live_s):
            return
        try:
            page = await shown()
        except AccessRefused:
            return
        except _Busy:
            continue  # the next look may find a thread


def _title(page: PageParts) -> str:
    return f"{page.title} - Paddock"


def _html(current: str, page: PageParts) -> Response:
    text = render(
        "console.html",
        title=_title(page),
        pages=CONSOLE_PAGES,
        current=current,
        live=page.live_s or "",
        body=page.body,
    )
    content = text.encode("utf-8", "replace")  # names of files may be no text
    return Response(content, page.status, _HEADERS, "text/html")


def _came_from(request: Request) -> str:
    """Return the page of the console that asked for a token; not an action, which is not redone."""
    try:
        address = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return _PIPELINES
    scope = {**request.scope, "method": "GET", "path": address.path}
    found = (route.matches(scope)[0] for route in request.app.routes)
    is_page = next((match for match in found if match is not Match.NONE), None) is Match.FULL
    if is_page and address.path.startswith(f"{CONSOLE_PATH}/") and address.path != SIGN_IN:
        return f"{address.path}?{address.query}"
    return _PIPELINES


def _not_done(name: str, words: str, status: int) -> Response:
    body = render("console_message.html", title="Not done", kind="error", words=words)
    return _html(name, PageParts("Not done", body, status=status))


def _refused(error: AccessRefused, status: int | None = None) -> Response:
    """Return a page that says why; with a form where a token helps."""
    title, sign_in = ("Sign in", SIGN_IN) if error.needs_token else ("Refused", "")
    body = render("console_refused.html", title=title, words=str(error), sign_in=sign_in)
    return _html("", PageParts(title, body, status=status or error.status))


class _PipelineHead(Struct, frozen=True):
    name: str
    words: str
    n_faults: int
    wants: str = ""


_Heads = dict[Path, tuple[FileStamp, _PipelineHead]]


def _pipeline_head(file: Path, own: str) -> _PipelineHead:
    try:
        plan = read_plan(file)
        pipeline, n_faults = plan.pipeline, len(api.validate(file).faults)
        wants = (
            "" if n_faults else permission_names(permission_needs(bind_without_inputs(plan), own))
        )
    except PipelineError as error:
        return _PipelineHead(file.stem, error.faults[0].message, len(error.faults))
    except Exception as error:  # no file's error may hide the others
        return _PipelineHead(file.stem, str(error), 1)
    return _PipelineHead(pipeline.name, pipeline.description or "", n_faults, wants)


def _triggers_text(pipeline: Mapping[str, Any]) -> str:
    is_open = pipeline.get("is_open", True)
    waits = [] if is_open else [f"waits for its window {pipeline['window']}"]
    triggers = map(trigger_text, pipeline.get("triggers", ()))
    return "; ".join((*triggers, *waits, *pipeline.get("missing", ())))
