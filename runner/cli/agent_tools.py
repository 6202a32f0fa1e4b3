"""Tools for agents with the pipelines of a folder, for `paddock mcp`: the verbs of the commands.

Each public method is a tool: its type hints are the schema, its docstring the description. Each
calls what the command of that name calls and returns JSON. Outside of `from_documents` stand only
numbers, times, names of runs and words of ours, so that a host can keep data and instructions
apart: what files, models and tools have written is in it, and so is the sentence of each error but
`ToolRefusal`. A path leads to no place outside of the folder. Nothing here decides for a person:
consent is `paddock allow`, and a review takes a person's key. Methods block; a thread calls each.
"""

from __future__ import annotations

import codecs
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from paddock.engine.api.api_keys import KeyRing
from paddock.engine.system import no_links
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import asdict
from paddock.engine.system.text import fit_json, json_size, shell_command, shorten
from paddock.pipelines.errors import Fault
from paddock.pipelines.plan import read_plan
from paddock.runner import api
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.core.run_options import RunOptions
from paddock.runner.core.run_records import read_lineage
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Review
from paddock.runner.ledger.run_history import (
    LedgerFolder,
    PastRun,
    open_for_reading,
    recent_runs,
    runs_named,
    unknown_run_text,
)
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.journal import JournalProgress
from paddock.runner.render.run_details import RunItem, read_run_details
from paddock.runner.review.answer_records import reviewed_answer
from paddock.runner.review.csv_and_gold_data import review_json
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.review.page_server import asks_people
from paddock.runner.schedule.discovery import walk_yaml_files
from paddock.runner.settings import STATE_FOLDER, read_settings

from .arguments import has_steps, pipeline_file
from .detached_run import (
    TRIGGER,
    DetachedRunRequest,
    DetachedRuns,
    ToolRefusal,
    refuse_paths_outside,
    stop_run,
)
from .exit_status import CommandError, status_and_message
from .history_text import unknown_path_text

Answer = dict[str, Any]
DATA = "from_documents"
MOST_ANSWER_BYTES = 64 * 1024  # some 20,000 tokens
MOST_READ_BYTES = 10 * 1024  # of one output: JSON writes a control character in six bytes
_PAGE_BYTES, _ITEM_BYTES, _AROUND_BYTES = 48 * 1024, 10 * 1024, 12 * 1024
_POLL_S = 0.3
_CLOSING_S = 3.0  # the ledger has a run's end before its process has closed its models

Pipeline = Annotated[str, "A pipeline, relative to the folder."]
Inputs = Annotated[dict[str, Any] | None, "Values of its inputs, by name."]
Offset = Annotated[
    int, Field(ge=0, le=10**9), "How many to pass over: `next_offset` of the page before."
]
Limit = Annotated[int, Field(ge=1, le=200), "How many at most."]
Sample = Annotated[int, Field(ge=1)] | None
ReviewId = Annotated[str, "The `id` of one of `reviews`."]
RunName = Annotated[str, "The run's name, as `run` and `runs` return it."]
WaitS = Annotated[float, Field(ge=0, le=45), "Seconds to wait for the run's end."]


class AgentDecision(BaseModel):
    """What a person decided on an answer."""

    verb: Literal["accept", "edit", "reject"]
    value: Any = Field(default=None, description="The edited answer.")
    reason: str = Field(default="", description="A rejection needs one.")


class AgentTools:
    """The tools over one folder. `keys` is the file of API keys of people who may decide."""

    def __init__(
        self, folder: Path, flags: Mapping[str, object], keys: Path | None, runs: DetachedRuns
    ) -> None:
        self.folder = folder.resolve()
        self._flags = dict(flags)
        self._keys = keys
        self._runs = runs

    def reading(self) -> tuple[Callable[..., Answer], ...]:
        return (
            *(self.list_pipelines, self.validate, self.plan, self.runs, self.status),
            *(self.results, self.read_output, self.why, self.reviews, self.review),
        )

    def changing(self) -> tuple[Callable[..., Answer], ...]:
        return self.run, self.stop, self.decide

    def list_pipelines(self, offset: Offset = 0, limit: Limit = 20) -> Answer:
        """List the pipelines of the folder with their inputs."""
        files = sorted(path for path, _ in walk_yaml_files(self.folder))
        found = [file for file in files if has_steps(file) and self._is_within(file)]
        return _page("pipelines", found, offset, limit, self._pipeline_head)

    def _pipeline_head(self, file: Path) -> Answer:
        if faults := api.validate(file).faults:
            return {"pipeline": self._shown(file), "is_valid": False, "faults": len(faults)}
        pipeline = read_plan(file).pipeline
        inputs = {
            name: {
                "type": declared.type,
                "is_required": declared.is_required and not declared.has_default,
                "default": None if declared.is_secret else declared.default,
                "description": declared.description,
                **({"values": list(declared.values)} if declared.values else {}),
            }
            for name, declared in pipeline.inputs.items()
        }
        return {
            "pipeline": self._shown(file),
            "name": pipeline.name,
            "description": pipeline.description or "",
            "inputs": inputs,
            "asks_people": asks_people(pipeline),
        }

    def validate(self, pipeline: Pipeline, offset: Offset = 0, limit: Limit = 50) -> Answer:
        """Check a pipeline and return every fault; touches no model and no document."""
        report = api.validate(self._pipeline(pipeline))
        page = _page("faults", report.faults, offset, limit, Fault.as_json, notes=report.notes)
        return {"ok": report.ok, **page}

    def plan(
        self,
        pipeline: Pipeline,
        inputs: Inputs = None,
        sample: Sample = None,
        offset: Offset = 0,
        limit: Limit = 50,
    ) -> Answer:
        """Return what a run would do, and why: items, model calls, time. Runs nothing.

        An item `outdated` is an output that no longer applies.
        """
        file = self._pipeline(pipeline)
        refuse_paths_outside(file, inputs or {}, self.folder)
        settings = read_settings(file.parent, flags=self._flags)
        options = RunOptions(sample=None if sample is None else ItemSample(sample))
        report = api.plan(file, inputs or {}, options, settings=settings)
        costs = report.as_json()
        items, outdated = costs.pop("items"), costs.pop("outdated")
        items += [_item("", path, "outdated", why=why) for path, why in outdated.items()]
        by_name = {name: costs.pop(name) for name in [*costs] if isinstance(costs[name], Mapping)}
        page = _page(
            "items", items, offset, limit, **by_name,
            notes=report.notes, advice=report.advice, remarks=report.remarks,
        )  # fmt: skip
        return {"has_work": report.has_work, **costs, **page}

    def run(
        self,
        pipeline: Pipeline,
        inputs: Inputs = None,
        only: Annotated[list[str] | None, "Only items of these keys."] = None,
        sample: Sample = None,
        retry_failed: bool = False,
    ) -> Answer:
        """Start a run and return its name; it goes on without this server.

        Ask `status` until it has ended, then `results`. The same call again continues, and does
        nothing twice. What a pipeline reaches besides files and models needs a person's consent:
        `paddock allow`.
        """
        file = self._pipeline(pipeline)
        order = DetachedRunRequest(str(file), inputs or {}, tuple(only or ()), sample, retry_failed)
        return self.status(self._runs.start(order))

    def runs(self, offset: Offset = 0, limit: Limit = 20) -> Answer:
        """List past and present runs, newest first."""
        left_out: list[str] = []
        places = find_ledgers([self.folder], left_out.append)
        found = recent_runs(places, limit=offset + limit + 1)
        faults = (*found.faults, *left_out)
        page = _page("runs", found.runs, offset, limit, self._run_head, faults=faults)
        del page["n_runs"]  # there may be more of them
        return page

    def status(self, run: RunName, wait_s: WaitS = 0) -> Answer:
        """Return how a run stands or ended, and, of one that this server started, its `returns`."""
        past, until = self._past(run), time.monotonic() + wait_s
        while past.status == "running" and time.monotonic() < until:
            time.sleep(_POLL_S)
            past = next(iter(runs_named([past.place], run).runs), past)
        until = max(until, time.monotonic() + _CLOSING_S)
        while past.status != "running" and self._runs.is_closing(run) and time.monotonic() < until:
            time.sleep(_POLL_S)
        n_ended, n_all = (progress := JournalProgress(past.journal)).update()
        head = self._run_head(past)
        data = {name: head.pop(name) for name in ("pipeline", "file")} | {"message": past.message}
        if past.status != "running":
            data |= self._runs.returns(run)
        head |= {name: data.pop(name) for name in ("is_cut",) if name in data}
        states = ("failed", "waiting", "skipped")
        apart = {f"n_{state}": progress.not_done[state] for state in states}
        counts = {"n_done": n_ended - progress.not_done.total(), "n_known": n_all, **apart}
        return {**head, **counts, DATA: data}

    def stop(
        self, run: RunName, now: Annotated[bool, "Interrupt the items in flight."] = False
    ) -> Answer:
        """Stop a run that an agent started: items in flight end, no other begins.

        `run` continues it. With `now` twice, its process is ended at once.
        """
        past = self._past(run)
        if past.row.trigger != TRIGGER or past.row.host != socket.gethostname():
            raise ToolRefusal(
                f"Run '{run}' was not started by an agent on this machine.\n"
                f"  Who started it can stop it."
            )
        if past.status == "running":
            stop_run(past, now=now)
        return self.status(run)

    def results(
        self,
        run: RunName,
        state: Annotated[str, "Only items of it, such as failed."] = "",
        offset: Offset = 0,
        limit: Limit = 20,
    ) -> Answer:
        """Return the items of a run with their states, errors and outputs (`read_output`)."""
        past = self._past(run)
        with open_for_reading(past.place) as ledger:
            rows = [(row.key, read_lineage(row).wrote) for row in LineageStore(ledger).of_run(run)]
        items = [item for item in read_run_details(past).items if state in ("", item.state)]
        found: list[RunItem | Answer] = [*items]
        folder = past.place.folder.resolve()
        for step, paths in rows if state in ("", "done") else ():
            if paths:  # a step that writes a file and is no item
                outputs = [self._shown(folder / path) for path in paths]
                found.append(_item(step, step, "done", outputs=outputs))

        def shown(item: RunItem | Answer) -> Answer:
            if not isinstance(item, RunItem):
                return item
            return _item(
                item.step, item.key, item.state,
                error=item.error,
                document=None if item.source is None else self._shown(Path(item.source)),
                outputs=[self._shown(Path(path)) for path in item.outputs],
                redone_by=item.later,
            )  # fmt: skip

        page = _page("items", found, offset, limit, shown)
        return {"run": past.row.run, "status": past.status, **page}

    def read_output(
        self,
        path: Annotated[str, "One of the outputs that `results` names."],
        offset: Annotated[int, Field(ge=0), "Bytes to pass over."] = 0,
    ) -> Answer:
        """Return the text of an output, in parts of 10 KiB: `next_offset` goes on."""
        file = self._within(path)
        for place in find_ledgers([self.folder]):
            with suppress(LedgerError, SettingsError), open_for_reading(place) as ledger:
                index = OutputIndex(ledger, place.folder.resolve(), set())
                if index.rows_at(index.stored(file)):
                    break
        else:
            raise ToolRefusal(
                f"'{shorten(path, 200)}' is no output of a pipeline.\n  `results` names them."
            )
        with no_links.open_file(file) as opened:
            n_bytes = opened.seek(0, os.SEEK_END)
            opened.seek(min(offset, n_bytes))
            data = opened.read(MOST_READ_BYTES)
        end = min(offset, n_bytes) + len(data)
        if b"\0" in data:
            raise ToolRefusal(f"'{shorten(path, 200)}' is no text: {n_bytes:,} bytes.")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, final=end >= n_bytes)
        end -= len(decoder.getstate()[0])  # a letter that the end cuts
        next_offset = end if end < n_bytes else None
        return {"bytes": n_bytes, "next_offset": next_offset, DATA: {"text": text}}

    def why(self, path: Annotated[str, "An output, a document or a folder."]) -> Answer:
        """Return where an output came from: document, prompts, answers, what changed since."""
        file = self._within(path)
        answer = explain_path(file, [self.folder])
        if not answer.is_known:
            raise CommandError("\n".join((*answer.faults, unknown_path_text(path, answer))))
        return {DATA: answer.as_json()}

    def reviews(self, pipeline: Pipeline, offset: Offset = 0, limit: Limit = 20) -> Answer:
        """List the answers of a pipeline that wait for a person's decision."""
        place = self._place(pipeline)
        with open_for_reading(place) as ledger:
            waiting = ReviewStore(ledger).waiting()
        found = [review for review in waiting if review.subject.pipeline == place.file]
        return _page("waiting", found, offset, limit, review_json)

    def review(self, pipeline: Pipeline, review_id: ReviewId) -> Answer:
        """Return one of them with the proposed answer, its fields and where they stand."""
        found = self._review(self._place(pipeline), review_id)
        answer = asdict(reviewed_answer(found))
        data = {**review_json(found), "value": found.subject.answer, **answer}
        return {"id": found.id, "question": found.question, DATA: data}

    def decide(
        self,
        pipeline: Pipeline,
        review_id: ReviewId,
        question: Annotated[str, "Of `review`: what the person has looked at."],
        decision: AgentDecision,
        key: Annotated[str, "The API key of the person who decides."],
    ) -> Answer:
        """Enter a person's decision on an answer that waits. Only with that person's own key."""
        given = key.encode("utf-8", "replace")
        found = None if self._keys is None else KeyRing(self._keys).find(given)
        if found is None:
            why = "This key is not known." if self._keys else "This server knows no people's keys."
            review = shell_command("paddock", "review", pipeline)
            raise ToolRefusal(f"{why}\n  A person decides: `{review}`.")
        place, by = self._place(pipeline), found.name
        self._review(place, review_id)
        with Ledger(place.state, url=read_settings(place.folder).ledger_url) as ledger:
            done = LedgerReviews(ledger).decide(
                review_id, question, decision.verb, decision.value, reason=decision.reason, by=by
            )
        return {"id": done.id, "state": done.state, "by": done.by}

    def _review(self, place: LedgerFolder, review_id: str) -> Review:
        with open_for_reading(place) as ledger:
            found = ReviewStore(ledger).get(review_id)
        if found is None or found.subject.pipeline != place.file:
            raise ToolRefusal(
                f"There is no review '{shorten(review_id, 200)}' of this pipeline.\n"
                f"  `reviews` lists what waits."
            )
        return found

    def _within(self, text: str) -> Path:
        """Return a path below the folder, without links."""
        path = self.folder / text.replace("\0", "?")
        if not self._is_within(path):
            raise ToolRefusal(
                f"'{shorten(text, 200)}' is outside of the folder that is shown.\n"
                f"  Write a path below it, as `list_pipelines` and `results` do."
            )
        return path.resolve()

    def _is_within(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):  # too long, a circle of links, no UTF-8
            return False

    def _pipeline(self, text: str) -> Path:
        file = pipeline_file(str(self._within(text)), "validate")
        return self._within(str(file))  # `x` may stand for a link `x.yaml`

    def _place(self, text: str) -> LedgerFolder:
        file = self._pipeline(text)
        return LedgerFolder(file.parent / STATE_FOLDER, file.name)

    def _shown(self, path: Path) -> str:
        is_below = path.is_relative_to(self.folder)
        return str(path.relative_to(self.folder)) if is_below else str(path)

    def _past(self, run: str) -> PastRun:
        places = find_ledgers([self.folder])
        found = runs_named(places, run)
        if found.runs:
            return found.runs[0]
        if found.faults:
            raise LedgerError(found.faults[0])
        raise ToolRefusal(unknown_run_text(places, shorten(run, 200)))

    def _run_head(self, past: PastRun) -> Answer:
        head = past.as_json()
        names = ("run", "pipeline", "status", "trigger", "attempt", "started", "ended", "seconds",
                 "counts", "calls", "tokens")  # fmt: skip
        file = self._shown(past.file.resolve())
        return {**{name: head[name] for name in names}, "file": file}


def _item(step: str, key: str, state: str, **details: Any) -> Answer:
    return {"step": step, "key": key, "state": state, **details}


def _page(
    name: str,
    found: Sequence[Any],
    offset: int,
    limit: int,
    made: Callable[[Any], Answer] = dict,
    **around: Any,
) -> Answer:
    """Return a page of a list, and where the next one begins, so that no item is left out.

    `made` returns what is shown of an item; `around` is what stands beside the list.
    """
    page, n_bytes = list[Answer](), 0
    kept = fit_json(around, _AROUND_BYTES)
    is_cut = kept is not around
    for source in found[offset : offset + limit]:
        item = made(source)
        page.append(fit_json(item, _ITEM_BYTES))
        n_bytes += json_size(page[-1]) + 2
        if len(page) > 1 and n_bytes > _PAGE_BYTES:
            page.pop()
            break
        is_cut |= page[-1] is not item
    end = offset + len(page)
    answer = {f"n_{name}": len(found), "next_offset": end if end < len(found) else None}
    return {**answer, **({"is_cut": True} if is_cut else {}), DATA: {name: page, **kept}}


def error_answer(error: Exception) -> Answer:
    """Return why a call failed: in our words alone, or with those of files under `from_documents`.

    >>> error_answer(ToolRefusal("There is no such run."))
    {'error': 'There is no such run.'}
    """
    if isinstance(error, ToolRefusal):
        return {"error": str(error)}
    message = str(error) if isinstance(error, DecisionRefused) else status_and_message(error)[1]
    return {"error": f"It was refused or failed: `{DATA}` says why.", DATA: {"error": message}}


def answer_text(answer: Answer) -> str:
    """Return an answer as JSON of at most `MOST_ANSWER_BYTES`; `is_cut` where it was cut.

    >>> answer_text({"from_documents": {"text": "a"}})
    '{"from_documents": {"text": "a"}}'
    """
    fitting = fit_json(answer, MOST_ANSWER_BYTES - 20)
    if fitting is not answer:
        fitting["is_cut"] = True
    text = json.dumps(fitting, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode()  # names of files may be no UTF-8
