"""Options of a run, what it uses of the process that starts it, and the bound pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from paddock.engine.request import Pool
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import Struct, field
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import ReviewMode
from paddock.runner.settings import Settings
from paddock.steps.base import CallCache, Toolset


class RunOptions(Struct, frozen=True, kw_only=True):
    """What the caller asks for besides the pipeline and its inputs. Plain values."""

    local: bool | None = None
    """True: in this process, without Prefect. False: with this machine's service, which is started
    if need be. None: as the environment says (`CI`, `PREFECT_API_URL`)."""
    only: frozenset[str] = frozenset()
    """Keys of items; empty for all."""
    sample: ItemSample | None = None
    """Which items of each top-level block are taken; None: all."""
    force: frozenset[str] = frozenset()
    """Ids of steps or blocks that run again in any case."""
    retry_failed: bool = False
    prune: bool = False
    """Remove outputs that no longer apply."""
    is_confirmed: bool = False
    """Missing documents were deleted on purpose; do not ask."""
    takes_over: bool = False
    """Replace outputs that were edited, or are not ours."""
    refresh: bool = False
    """Redo items made by an older, compatible version of a step."""
    no_cache: bool = False
    """Ask the models again for requests whose replies are known."""
    review: ReviewMode = "ask"
    """What to do with an answer that waits for a person: `ask`; `fail`, `skip` or `accept` where
    there is no one."""
    wait_s: float | None = None
    """The longest wait for another run on the same folders; None: no limit."""
    notify: bool | None = None
    """Whether to notify as `on.notify` says; None: unless the trigger is `hand`."""
    allow: frozenset[str] = frozenset()
    """Permissions besides those of the settings."""
    needs_consent: bool = False
    """Whether a person must have agreed to what this file asks for, besides what is allowed."""
    text: str | None = None
    """The pipeline's text, where it was read before; None: read the file."""
    variant_of: str = ""
    """The name of the file of which `text` is a variant: what that file wrote is no document."""
    trigger: str = "hand"
    """What started the run: `hand`, `schedule`, `watch`, `webhook`, `compare` with the variant."""
    ordered_files: tuple[FileVersion, ...] | None = None
    """Of a watch's order: the versions of files that the run takes, besides those that were handled
    before; other files below a watch are left. None: it takes all files as they are."""
    job: str = ""
    """Names what runs do one after the other, after crashes; empty: alone."""

    @property
    def leaves_out_items(self) -> bool:
        return bool(self.only) or self.sample is not None

    @property
    def is_unattended(self) -> bool:
        return self.trigger != "hand" and not self.variant_of

    @property
    def notifies(self) -> bool:
        return self.is_unattended if self.notify is None else self.notify


class CallTape(Protocol):
    """Records results of tools and commands, or replays recorded ones."""

    def toolset(self, inner: Toolset) -> Toolset:
        """Return the tools of a step."""

    def memo(self, inner: CallCache) -> CallCache:
        """Return the cache of a step's other calls."""


class RunEnvironment(Struct, frozen=True, kw_only=True):
    """What a run uses of the process that starts it."""

    settings: Settings | None = None
    """None: read those of the pipeline's folder."""
    observer: Observer = field(default_factory=Observer)
    pool: Pool | None = None
    """Answers in place of any other pool."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Once set, ends the run in order: items in flight are cancelled."""
    stop_gate: StopGate = field(default_factory=StopGate)
    """Once closed, items in flight finish and no new one begins."""
    environ: Mapping[str, str] | None = None
    """Where secrets are read; None: the process's environment."""
    tape: CallTape | None = None
    """Records or replays calls of tools, for a test."""
    has_group_turn: bool = True
    """Whether the run waits for its turn in its concurrency group; tests do not."""
    is_acting: bool = True
    """Whether steps act on mailboxes, databases and servers; in tests they do not."""

    effect_times: list[tuple[float, float]] = field(default_factory=list)
    """When the run did more than read and ask, in seconds since 1970; it fills this in."""
    keeps_tables: bool = False
    """Whether the report has tables of blocks and steps (`Report.table`)."""

    @property
    def is_stopping(self) -> bool:
        return self.stop.is_set() or self.stop_gate.is_closed


class PreparedRun(Struct, frozen=True):
    """A pipeline that is read, checked and bound."""

    bound: BoundPlan
    settings: Settings
    secrets: Secrets
    lacking: str | None = None
    """Of a plan: what its run will need besides, in a sentence; None: nothing."""
