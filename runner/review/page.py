"""The review page: its files and the JSON API under `/review/api` that it asks.

The page loads nothing from elsewhere. Documents may have ten million characters, so their texts
are sent in windows, cut into parts with the fields that stand there; the page writes them as text,
never as markup. All ledgers are read and written in one thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import parse_json
from paddock.engine.api.streaming import dumps, json_response
from paddock.engine.models.well_known import MEASURED
from paddock.engine.system import files, no_links
from paddock.engine.system.records import replace
from paddock.engine.system.text import cell_text
from paddock.pipelines.checking.schema_parts import empty_fields
from paddock.pipelines.reply_check import AnswerFault
from paddock.runner.calibration.confidence_calibration import like_this_text
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.reviews import (
    DecisionRefused,
    Review,
    Subject,
    SubjectText,
    unknown_review,
)
from paddock.runner.render.console_page import (
    CONSOLE_PAGES,
    PAGE_HEADERS,
    style_and_script,
    text_route,
)
from paddock.runner.render.html_page import render
from paddock.runner.rules.reasons import why_text
from paddock.steps.base import StepError
from paddock.steps.readers.documents import locate_values_now, render_page
from paddock.steps.readers.reader_pool import ReaderPool

from .answer_checks import evidence_request
from .answer_fields import (
    FieldKeys,
    WrongField,
    answer_fields,
    answer_from_json,
    changed_fields,
    edited_answer,
    left_path,
    page_words,
    shown_fields,
    shown_spans,
    shown_subject,
    subject_fields,
    text_window,
)
from .decisions import (
    SHORT_QUESTION_CHARS,
    GivenDecision,
    LedgerReviews,
    ToAcceptTogether,
    Verb,
    clicked_places,
    is_checked,
    valid_marks,
)
from .label_tables import LabelTable
from .page_access import PAGE_PATH, AccessRefused, PageAccess, request_body
from .taught_rules import answered_by, checks_to_accept, taught_rules

WINDOW_CHARS, MOST_WINDOW_CHARS = 6_000, 40_000
MOST_SIDE_PX = 1600
"""Of a page's picture."""
MOST_TOGETHER = 20_000
"""Answers that one decision accepts."""
MOST_DECIDED = 500
"""Decided reviews that the page lists, the newest."""
NEAR_S, TOGETHER_S = 5.0, 30.0
"""For checks of what a decision answers, and of what one accepts: a costly one takes 3.5 s."""
_MOST_BODY_BYTES = 4 * 1024**2
_NO_STORE = {**PAGE_HEADERS, "Cache-Control": "no-store"}
_KEPT_TEXTS = 4
"""Texts of documents that are kept: a person looks at several windows of one."""

Act = Callable[[Request, str], Awaitable[Any]]
"""A handler: the request and the reviewer's name → a JSON value or a response."""
_T = TypeVar("_T")


class ReviewPage:
    """The routes of the page. `close` ends its thread."""

    def __init__(
        self,
        all_reviews: Callable[[], Sequence[LedgerReviews]],
        access: PageAccess,
        is_shown: Callable[[Review], bool] = lambda review: True,
    ) -> None:
        """`all_reviews` is called in the page's thread; `is_shown` chooses the reviews to list."""
        self._all_reviews = all_reviews
        self.access = access
        self._is_shown = is_shown
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review")
        self._texts: dict[str, str] = {}
        self._located: tuple[Any, Any] = None, None
        """A review with its decision, and the evidence of that."""
        self._readers = ReaderPool()
        values = {"pages": CONSOLE_PAGES, "current": "Review"}
        self._html = text_route(PAGE_PATH, lambda: render("review.html", **values)).endpoint
        self._queue_rows = ("", b"[]")
        self.decided_here: set[str] = set()
        """Ids of the reviews whose decisions were made here and stand."""
        self._answered: dict[str, tuple[str, str]] = {}
        """Waiting review → id and item of the decision here that answers it at the next run."""

    async def ask(self, work: Callable[[Sequence[LedgerReviews]], _T]) -> _T:
        """Call a function with the reviews of all ledgers, in the thread that may use those."""
        return await self._work(self._with_reviews, work)

    def _with_reviews(self, work: Callable[[Sequence[LedgerReviews]], _T]) -> _T:
        return work(self._all_reviews())

    async def close(self, last: Callable[[], None] = lambda: None) -> None:
        """Call `last` in the thread, after everything else, and end it and the readers."""
        await self._work(last)
        self._thread.shutdown()
        await asyncio.to_thread(self._readers.close)

    def routes(self) -> list[BaseRoute]:
        api = f"{PAGE_PATH}/api"
        review_path = f"{api}/reviews/{{id}}"
        reads = {
            f"{api}/queue": self._queue,
            f"{api}/decided": self._decided,
            f"{api}/rules": self._rules,
            review_path: self._review,
            f"{review_path}/text": self._text,
            f"{review_path}/words": self._words,
            f"{review_path}/picture": self._picture,
        }
        writes = {
            "lease": self._changing(LedgerReviews.take_lease),
            "release": self._changing(LedgerReviews.release),
            "check": self._check,
            "label": self._add_label,
            "decide": self._decide,
            "undo": self._undo,
        }
        return [
            Route(f"{api}/accept", self._endpoint(self._accept_all), methods=["POST"]),
            Route(f"{api}/undo", self._endpoint(self._undo_all), methods=["POST"]),
            Route(PAGE_PATH, self._entrance, methods=["GET", "POST"], name="review"),
            Route(f"{PAGE_PATH}/", lambda _: RedirectResponse(PAGE_PATH)),
            *style_and_script(f"{PAGE_PATH}/page", "review"),
            *(Route(path, self._endpoint(act)) for path, act in reads.items()),
            *(
                Route(f"{review_path}/{name}", self._endpoint(act), methods=["POST"])
                for name, act in writes.items()
            ),
        ]

    async def _entrance(self, request: Request) -> Response:
        try:
            entered = await self.access.entered(request)
        except AccessRefused as error:
            return PlainTextResponse(f"{error}\n", error.status)
        return await self._html(request) if entered is None else entered

    def _endpoint(self, act: Act) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                answer = await act(request, self.access.reviewer(request))
            except (AccessRefused, ApiError) as error:
                return _refusal(error.status, str(error))
            except (DecisionRefused, StepError) as error:
                return _refusal(409, str(error))
            except WrongField as error:
                return _refusal(422, str(error))
            except LedgerError as error:
                return _refusal(503, str(error))
            if isinstance(answer, Response):
                return answer
            return json_response(answer, headers=_NO_STORE)

        return endpoint

    async def _queue(self, request: Request, by: str) -> Response:
        """Return what waits. Open pages ask every few seconds, so an unchanged list is not sent."""
        etag, rows = await self.ask(self._waiting)
        headers = {**_NO_STORE, "ETag": f'"{etag}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        body = b'{"by":%b,"rows":%b}' % (dumps(by), rows)
        return Response(body, 200, headers, "application/json")

    def _waiting(self, all_reviews: Sequence[LedgerReviews]) -> tuple[str, bytes]:
        """Return the queue's ETag, and its rows as JSON, which are kept until that changes."""
        versions = [[str(reviews.ledger.folder), reviews.mark()] for reviews in all_reviews]
        etag = hashlib.sha256(dumps([versions, self._answered])).hexdigest()[:20]
        if self._queue_rows[0] != etag:
            if self._answered:  # as long as their decisions stand
                ids = {page_id(reviews, r.id) for reviews in all_reviews for r in reviews.decided()}
                for id_ in [id_ for id_, of in self._answered.items() if of[0] not in ids]:
                    del self._answered[id_]
            waiting = ((reviews, review) for reviews in all_reviews for review in reviews.waiting())
            rows = [
                _row(reviews, review)
                | {"answered": self._answered.get(page_id(reviews, review.id), ("", ""))[1]}
                for reviews, review in waiting
                if self._is_shown(review)
            ]
            # Of 5,000 rows, a third is names of values that are not there.
            short = [{name: value for name, value in row.items() if value} for row in rows]
            self._queue_rows = etag, dumps(short)
        return self._queue_rows

    async def _decided(self, request: Request, by: str) -> Any:
        def newest(all_reviews: Sequence[LedgerReviews]) -> list[dict[str, Any]]:
            pairs = [
                (reviews, review)
                for reviews in all_reviews
                for review in reviews.decided()[:MOST_DECIDED]
                if self._is_shown(review)
            ]
            pairs.sort(key=lambda pair: -(pair[1].decided_at or 0.0))
            return [_row(reviews, review) for reviews, review in pairs[:MOST_DECIDED]]

        return {"rows": await self.ask(newest)}

    async def _rules(self, request: Request, by: str) -> Any:
        def listed(all_reviews: Sequence[LedgerReviews]) -> dict[str, Any]:
            found, none, checked = list[Any](), list[Any](), Counter[str]()
            for reviews in all_reviews:
                decided = {r.id: r for r in reviews.standing() if self._is_shown(r)}
                taught = taught_rules(reviews.ledger, decided)
                none += taught.without_rule
                checked.update(taught.checked)
                for rule in taught.rules:
                    rests = [{**r, "id": page_id(reviews, r["id"])} for r in rule["decisions"]]
                    found.append({**rule, "decisions": rests, "folder": reviews.shown_folder})
            return {"rules": found, "without_rule": none, "checked": checked}

        return await self.ask(listed)

    async def _review(self, request: Request, by: str) -> Any:
        reviews, review = await self._found(request)
        return await self._work(_detail, reviews, review, await self._shown(reviews, review), by)

    async def _shown(self, reviews: LedgerReviews, review: Review) -> Subject:
        """Return the subject with the answer that a person sees, and where that stands."""
        value, subject = review.shown_answer, review.subject
        mark = (page_id(reviews, review.id), review.question, review.decided_at)
        is_other = subject.evidence is not None and not is_same_value(value, subject.answer)
        if is_other and self._located[0] != mark:
            request = await self._work(evidence_request, reviews, subject, value)
            with suppress(StepError):  # the values are shown, but no places
                found = await asyncio.to_thread(locate_values_now, request, self._readers)
                self._located = mark, found
        return shown_subject(review, self._located[1] if self._located[0] == mark else None)

    async def _text(self, request: Request, by: str) -> Any:
        query = request.query_params
        start, n = (_count(query.get(name), otherwise) for name, otherwise in _WINDOW.items())
        reviews, review = await self._found(request)
        source = _source(review, query.get("source"))
        spans = shown_spans(await self._shown(reviews, review), source.name)
        text = await self._work(self._text_of, reviews, source)
        return text_window(text, start, min(n, MOST_WINDOW_CHARS), spans)

    async def _words(self, request: Request, by: str) -> Any:
        """Return the words of a page with their boxes, and what a click on each of them means."""
        query = request.query_params
        page = _count(query.get("page"), 1)

        def words(reviews: LedgerReviews, review: Review) -> list[list[Any]]:
            source = _source(review, query.get("source"))
            shown = reviews.source(source, self._text_of(reviews, source))
            return page_words(shown, page, review.subject.offers)

        return {"words": await self._at(request, words)}

    def _text_of(self, reviews: LedgerReviews, source: SubjectText) -> str:
        digest = source.text_object or ""
        text = self._texts.pop(digest) if digest in self._texts else reviews.source_text(source)
        if text is None:
            raise DecisionRefused(
                f"The text of '{source.name}' is not in this ledger's "
                f"folder: it was removed, or the ledger is another machine's."
            )
        if digest:
            self._texts[digest] = text  # the newest is last
        while len(self._texts) > _KEPT_TEXTS:
            del self._texts[next(iter(self._texts))]
        return text

    async def _picture(self, request: Request, by: str) -> Response:
        page = _count(request.query_params.get("page"), 1)
        reviews, review = await self._found(request)
        source = _source(review, request.query_params.get("source"))
        if not source.has_picture:
            raise DecisionRefused("This source has no pages to show.")
        path = await self._work(_present_path, reviews, str(source.path), review)
        await asyncio.to_thread(_refuse_changed, path, review)
        picture = await render_page(path, page, MOST_SIDE_PX, readers=self._readers)
        return Response(picture, headers=_NO_STORE, media_type="image/png")

    def _changing(self, change: Callable[[LedgerReviews, str, str], Review]) -> Act:
        async def act(request: Request, by: str) -> Any:
            return await self._at(
                request, lambda reviews, review: _row(reviews, change(reviews, review.id, by))
            )

        return act

    async def _check(self, request: Request, by: str) -> Any:
        """Return what is wrong with an edit that was not sent yet, and what it would answer."""
        body = await _body(request)
        reviews, review = await self._found(request)
        try:
            value = _edited(review, body)
        except WrongField as error:
            return {"faults": [{"path": error.path, "message": str(error)}], "answers": []}
        others, most = list[Review](), 0
        wrong = await self._faults(reviews, review, value)
        if not wrong and not review.is_decided:
            places = clicked_places(body.get("places"))
            marks = valid_marks(body.get("marks"), review.subject)
            subject = replace(review.subject, places=places, marks=marks)
            to_decide = replace(review, value=value, subject=subject)
            near, most = await self._work(answered_by, reviews, to_decide)
            others = await self._sound(reviews, near)
        shown = [{"path": fault.path, "message": fault.message} for fault in wrong]
        return {"faults": shown, "answers": [r.item for r in others], "looked_at": most}

    async def _faults(
        self, reviews: LedgerReviews, review: Review, value: Any
    ) -> list[AnswerFault]:
        """Return what is wrong with a value; it is checked where it holds no other page."""
        check = await self._work(reviews.check_of, review, value)
        return await asyncio.to_thread(check.faults, self._readers)

    async def _sound(
        self, reviews: LedgerReviews, answered: Sequence[tuple[Review, Any]]
    ) -> list[Review]:
        """Return the questions whose answers are sound, as far as that is known in time."""
        ends_at, sound = time.monotonic() + NEAR_S, list[Review]()
        for review, value in answered:
            if value is None or time.monotonic() >= ends_at:
                continue
            if not await self._faults(reviews, review, value):
                sound.append(review)
        return sound

    async def _add_label(self, request: Request, by: str) -> Any:
        """Add a row to the table of a field's labels; return its label, and what that changes."""
        body = await _body(request)
        field, cells = body.get("field"), body.get("cells")
        if (
            not isinstance(field, str)
            or not isinstance(cells, dict)
            or not all(isinstance(cell, str) for cell in cells.values())
        ):
            raise ApiError(400, "A label has a `field`, and `cells`: a text for each column.")

        def add(reviews: LedgerReviews, review: Review) -> dict[str, Any]:
            label = reviews.add_label(review.id, field, cells, by)
            step = (review.subject.pipeline, review.step)
            steps = [(waiting.subject.pipeline, waiting.step) for waiting in reviews.waiting()]
            return {"label": label, "others": steps.count(step) - 1}

        return await self._at(request, add)

    async def _decide(self, request: Request, by: str) -> Any:
        body = await _body(request)
        question, reason = (str(body.get(name) or "") for name in ("question", "reason"))
        verb = cast(Verb, str(body.get("verb")))  # `enter` refuses any other
        reviews, review = await self._found(request)
        value = _edited(review, body) if verb == "edit" else review.shown_answer
        wrong = None
        if is_checked(review, verb) and review.question == question:
            wrong = await self._faults(reviews, review, value)
        places, over = clicked_places(body.get("places")), body.get("over")
        marks = valid_marks(body.get("marks"), review.subject)
        given = GivenDecision(question, verb, by, value, reason, places, marks, over, wrong)

        def decide() -> tuple[Review, list[tuple[Review, Any]]]:
            decided = reviews.enter(review.id, given)
            self.decided_here.add(page_id(reviews, decided.id))
            return decided, [] if verb == "reject" else answered_by(reviews, decided)[0]

        decided, near = await self._work(decide)
        others = await self._sound(reviews, near)
        ids = [page_id(reviews, other.id) for other in others]
        looked_at = {page_id(reviews, other.id) for other, _ in near}
        answer = page_id(reviews, decided.id), decided.item

        def note() -> list[str]:
            opened = sorted(looked_at.intersection(self._answered).difference(ids))
            for id_ in opened:  # the decisions contradict each other
                del self._answered[id_]
            self._answered.update(dict.fromkeys(ids, answer))
            return opened

        return {**_row(reviews, decided), "answers": ids, "opened": await self._work(note)}

    async def _undo(self, request: Request, by: str) -> Any:
        def undo(reviews: LedgerReviews, review: Review) -> dict[str, Any]:
            opened = reviews.undo(review.id, by)
            self.decided_here.discard(page_id(reviews, opened.id))
            return _row(reviews, opened)

        return await self._at(request, undo)

    async def _accept_all(self, request: Request, by: str) -> Any:
        """Accept the answers of `rows`, pairs of id and question, in one decision."""
        rows: Any = (await _body(request)).get("rows")
        is_list = isinstance(rows, list) and 0 < len(rows) <= MOST_TOGETHER
        if not is_list or not all(
            isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row)
            for row in rows
        ):
            raise ApiError(400, f"`rows` are pairs of id and question, at most {MOST_TOGETHER:,}.")
        pairs = dict(rows)

        def found(all_reviews: Sequence[LedgerReviews]) -> list[tuple[LedgerReviews, list[str]]]:
            return [(reviews, [r.id for r in reviews.waiting()]) for reviews in all_reviews]

        together, accepted, left, unknown = list[str](), set[str](), list[str](), {*pairs}
        for reviews, ids in await self.ask(found):
            own = {id_: shown for id_ in ids if (shown := page_id(reviews, id_)) in pairs}
            if not own:
                continue
            unknown -= {*own.values()}
            to_accept, ends_at = ToAcceptTogether(), time.monotonic() + TOGETHER_S
            try:
                for id_ in own:
                    if time.monotonic() >= ends_at:
                        to_accept.left[id_] = "It was not checked in time: accept again."
                    elif checks := await self._work(checks_to_accept, reviews, id_):
                        await asyncio.to_thread(to_accept.check, *checks, self._readers)
                questions = [(id_, pairs[shown]) for id_, shown in own.items()]
                done = await self._work(to_accept.enter, reviews, questions, by)
            except LedgerError as error:  # what other folders' ledgers took stands
                left += [str(error)] * len(own)
                continue
            if done.reviews:
                together.append(done.id)
                accepted |= {own[review.id] for review in done.reviews}
            left += done.left.values()
        left += [str(unknown_review(id_)) for id_ in sorted(unknown)]
        self.decided_here |= accepted
        return {"together": together, "accepted": len(accepted), "left": left}

    async def _undo_all(self, request: Request, by: str) -> Any:
        """Take back the decisions of `together`, each on several answers."""
        given = (await _body(request)).get("together")
        ids = [id_ for id_ in given if isinstance(id_, str)] if isinstance(given, list) else []

        def undo(all_reviews: Sequence[LedgerReviews]) -> dict[str, Any]:
            standing = [
                (reviews, review)
                for reviews in all_reviews
                for review in reviews.decided()
                if review.together in ids
            ]
            if not standing:
                raise DecisionRefused("No such decision on several answers stands.")
            for why in (reviews.refusal(review, by) for reviews, review in standing):
                if why is not None:  # all or none, in other folders as well
                    raise DecisionRefused(why)
            decisions = {(reviews, str(review.together)): None for reviews, review in standing}
            opened = {
                page_id(reviews, review.id)
                for reviews, together in decisions
                for review in reviews.undo_together(together, by)
            }
            self.decided_here -= opened
            return {"opened": len(opened)}

        return await self.ask(undo)

    async def _found(self, request: Request) -> tuple[LedgerReviews, Review]:
        return await self._at(request, lambda reviews, review: (reviews, review))

    async def _at(self, request: Request, act: Callable[[LedgerReviews, Review], _T]) -> _T:
        """Call `act` with a request's review and the reviews of its ledger."""
        id_ = request.path_params["id"]
        folder, _, own = id_.rpartition("-")

        def act_on_it(all_reviews: Sequence[LedgerReviews]) -> _T:
            if not all_reviews:
                raise DecisionRefused("No ledger is here: no pipeline with `review` has run yet.")
            for reviews in all_reviews:
                if folder == reviews.folder_id or (not folder and len(all_reviews) == 1):
                    return act(reviews, reviews.get(own))
            raise unknown_review(id_)

        return await self.ask(act_on_it)

    async def _work(self, work: Callable[..., _T], *values: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)


def _refusal(status: int, sentence: str) -> Response:
    return json_response({"error": sentence}, status, _NO_STORE)


async def _body(request: Request) -> dict[str, Any]:
    body = await request_body(request, _MOST_BODY_BYTES)
    if body is None:
        raise ApiError(413, "This is more than an answer can be: 4 MiB at most.")
    value = parse_json(body) if body else {}
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return value


_WINDOW = {"start": 0, "n": WINDOW_CHARS}


def _count(written: str | None, otherwise: int) -> int:
    return int(written) if written and written.isdecimal() and len(written) < 12 else otherwise


def page_id(reviews: LedgerReviews, id_: str) -> str:
    return f"{reviews.folder_id}-{id_}"


_ROW_NAMES = (
    "together", "step", "state", "asked_at", "expires_at", "lease_until", "by", "decided_at",
    "is_applied",
)  # fmt: skip
_FIELD_NAMES = (
    "path", "keys", "kind", "text", "is_nullable", "description", "confidence", "evidence",
)  # fmt: skip


def _row(reviews: LedgerReviews, review: Review) -> dict[str, Any]:
    subject = review.subject
    return {name: getattr(review, name) for name in _ROW_NAMES} | {
        "id": page_id(reviews, review.id),
        "folder": reviews.shown_folder,
        "question": review.question[:SHORT_QUESTION_CHARS],
        "item": review.item,
        "due": subject.due or None,
        "reviewers": subject.by or None,
        "least": subject.least,
        "pipeline": subject.pipeline,
        "lease": review.lease_by,
        "is_again": bool(review.earlier),
    }


def _detail(reviews: LedgerReviews, review: Review, subject: Subject, by: str) -> dict[str, Any]:
    """Return what a person sees of a review; `subject`: as they see it."""
    fields = sorted(subject_fields(subject), key=lambda field: subject.is_sure_of(field.keys[:1]))
    empty = empty_fields(subject.answer, subject.schema)
    tables = _tables(reviews, subject)
    return {
        **_row(reviews, review),
        **{name: getattr(subject, name) for name in ("document", "model", "when", "on_expiry")},
        "question": review.question,
        "me": by,
        "refusal": reviews.refusal(review, by),
        "reason": review.reason,
        "is_text": not isinstance(subject.answer, dict | list),
        "json": json.dumps(subject.answer, ensure_ascii=False, indent=2),
        "fields": [
            {name: getattr(field, name) for name in _FIELD_NAMES}
            | {
                "is_null": field.value is None,
                "reading": _reading(reviews, subject, field.keys),
                "is_empty": field.keys in empty,
                "like_this": like_this_text(field.confidence),
                "choices": [cell_text(choice) for choice in field.choices],
                "table": tables.get(".".join(key for key in field.keys if isinstance(key, str)))
                if field.kind == "choice"
                else None,
            }
            for field in fields
        ],
        "was": {
            path: cell_text(old)
            for path, old, _ in changed_fields(review.subject.answer, subject.answer)
        },
        "left": [*_left_over(subject)],
        "marks": subject.marks,
        "places": subject.places,
        "teaches": bool(subject.offers),
        "measured": MEASURED.get(subject.digest or "", ""),
        "earlier": [_earlier(decision, subject) for decision in review.earlier],
        "sources": [
            {
                "name": source.name,
                "n_pages": max(1, len(source.page_starts)),
                "has_picture": source.has_picture,
            }
            for source in subject.sources
        ],
    }


def _left_over(subject: Subject) -> Iterator[dict[str, Any]]:
    """Yield each piece that is left over, where it stands, and the fields that it opens."""
    for key, (text, start, end, fields) in subject.left_over.items():
        own: dict[str, Any] = {"path": left_path(key), "key": key, "text": text, "fields": fields}
        own |= {"start": start, "end": end, "is_missing": start < 0}
        for source in subject.sources[: len(subject.sources) == 1 and start >= 0]:
            page = bisect_right(source.page_starts, start) or None
            own |= {"source": source.name, "page": page}
        yield own


def _reading(reviews: LedgerReviews, subject: Subject, keys: FieldKeys) -> dict[str, Any] | None:
    """Return how a field was read that no one is asked about, and on which decision; else why."""
    reading = subject.readings.get(str(keys[0]) if keys else "")
    if reading is None:
        return None
    if "open" in reading:
        return {**reading, "text": why_text({**reading, "left": ()})}  # it stands above
    if not subject.is_sure_of(keys[:1]):
        return None
    rests = None
    with suppress(DecisionRefused):
        rests = reviews.get(reading["decision"]) if "decision" in reading else None
    own = {"by": reading["by"], "label": reading.get("label")}
    if rests is None or not rests.is_decided:
        return own
    names = {"who": rests.by, "at": rests.decided_at, "item": rests.item}
    return own | names | {"decision": page_id(reviews, rests.id)}


def _tables(reviews: LedgerReviews, subject: Subject) -> dict[str, Any]:
    tables = {}
    for field, written in subject.label_tables.items():
        # No rows are added to a table that cannot be read
        tables[field] = {"name": Path(written["path"]).name, "columns": []}
        with suppress(DecisionRefused):
            table = LabelTable.of(reviews.ledger.folder.parent, written)
            columns, needed = table.table.columns, table.needed
            tables[field] = {"name": table.file.name, "columns": columns, "needed": needed}
    return tables


def _earlier(decision: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    fields = answer_fields(decision.get("value"), subject.schema)
    has_value = decision.get("value") is not None
    return {
        **{name: decision.get(name) for name in ("state", "by", "at", "reason")},
        "fields": {field.path: field.text for field in fields} if has_value else {},
        "is_other_document": decision.get("document_sha256") != subject.document_sha256,
    }


def _present_path(reviews: LedgerReviews, stored: str, review: Review) -> Path:
    """Return where a document lies: as it is filed, since another may have its name, or was."""
    folder, filed = reviews.ledger.folder.parent.resolve(), FiledStore(reviews.ledger)
    targets = (target for place in review.places for target in filed.targets(*place))
    return folder / next((target for target in targets if (folder / target).exists()), stored)


def _refuse_changed(path: Path, review: Review) -> None:
    """Refuse to show a document that is another one now: boxes would mark the wrong words."""
    name = path.name
    try:
        with no_links.open_file(path) as file:
            if os.fstat(file.fileno()).st_ctime <= review.asked_at:
                return
        digest = files.sha256_of(path, follows_links=False)
    except OSError as error:
        raise DecisionRefused(
            f"'{name}' cannot be shown: {error.strerror}. This is its text as the model read it."
        ) from None
    if digest != review.subject.document_sha256:
        raise DecisionRefused(
            f"'{name}' was changed since the question was asked: the next run asks again. This is "
            f"its text as the model read it."
        )


def _source(review: Review, number: str | None) -> SubjectText:
    sources = review.subject.sources
    at = _count(number, 0)
    if at >= len(sources):
        raise DecisionRefused("The step names no source: there is no text to show.")
    return sources[at]


def _edited(review: Review, body: Mapping[str, Any]) -> Any:
    """Return the answer as a person's texts make it."""
    if isinstance(body.get("json"), str):
        return answer_from_json(body["json"])
    changes = body.get("changes")
    if not isinstance(changes, dict) or not all(
        isinstance(change, str) for change in changes.values()
    ):
        raise ApiError(400, "An edit has `changes`, a text for each field, or `json`.")
    return edited_answer(review.shown_answer, shown_fields(review), changes)
