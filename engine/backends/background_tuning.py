"""Background tuning: measure models again, and make their fastest copies, while a pool is idle.

`BackgroundTuner` watches a pool of a service that stays. A loaded model whose measurement other
programs disturbed is measured again in its worker. Models that have computed for some minutes here,
and small ones at once, are tried in a subprocess as `paddock tune` does. The first request that
comes ends either. Everything but the waiting for that subprocess runs in the pool's event loop.
What requests ask is kept in memory alone, a little of it, to judge a copy by.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from paddock.engine.errors import EngineError
from paddock.engine.gguf import GgufHeader, read_header
from paddock.engine.memory.device_memory import this_device
from paddock.engine.models.model_names import canonical_name
from paddock.engine.profile.format_speeds import can_be_judged, may_be_f16
from paddock.engine.request import ModelFacts, ModelSpec
from paddock.engine.system.hardware import read_memory
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.retry import Backoff
from paddock.engine.system.tasks import StopRequested, end, unless
from paddock.engine.tuning.tuned_copies import TunedCopy, TunedCopyStore, TuningVerdict
from paddock.engine.tuning.tuner import (
    TuningBusy,
    TuningInterrupted,
    TuningRefused,
    TuningRequest,
    TuningStop,
    copy_bytes,
    example_texts,
    remove_left_parts,
    tune,
    tuning_place,
)
from paddock.engine.workers.worker_protocol import WorkerGone

from .local import LocalPool

log = logging.getLogger("paddock.tuning")

LOOK_S = 2.0
IDLE_S = 10.0  # doubled by each trial that was interrupted
MOST_ATTEMPTS = 6
TRIAL_END_S = 10.0  # its process is killed at once; on a busy machine its thread takes a moment
COMPUTED_S = 180.0  # a larger model's copy takes minutes and gigabytes
LEAST_GAIN = 1.15
_MOST_MODELS, _MOST_TEXTS, _MOST_CHARACTERS = 32, 64, 20_000
_ENOUGH_CHARACTERS = 12_000  # 2,000 tokens, of up to 6 characters
# A measurement takes 12 s; the last of them comes after three hours.
MEASURE_AGAIN = Backoff(first_s=60.0, longest_s=3600.0)
MOST_MEASUREMENTS = 8


@dataclass(slots=True)
class _UsedModel:
    """What requests have asked of a model."""

    computed_s: float = 0.0
    texts: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_TEXTS))
    is_done: bool = False
    """Whether this process tries it no more."""


@dataclass(slots=True)
class _Measured:
    """How often a loaded model was measured again, and when its next turn comes."""

    n_times: int = 0
    next_at: float = 0.0


class BackgroundTuner:
    """Use it as `async with BackgroundTuner(pool)`, inside the pool's own context."""

    def __init__(self, pool: LocalPool) -> None:
        self._pool = pool
        self._store = TunedCopyStore(pool.settings.cache_dir)
        self._n_threads = pool.settings.n_threads or this_device().n_threads
        self._used: dict[str, _UsedModel] = {}
        self._measured: dict[str, _Measured] = {}
        """By the models' digests."""
        self._stop = TuningStop()
        self._has_request = asyncio.Event()
        self._trial: asyncio.Future[TunedCopy] | None = None

    async def __aenter__(self) -> BackgroundTuner:
        settings = self._pool.settings
        # Trials of formats are for processors: on a device they would take memory that models need.
        is_on_device = this_device().is_gpu and settings.n_gpu_layers != 0
        self._makes_copies = settings.tune != "off" and not settings.is_exact and not is_on_device
        if self._makes_copies or settings.profile_s:
            self._pool.on_request = self.observe
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        if self._pool.on_request == self.observe:
            await end(self._task)
        if self._trial is not None:  # its thread removes what it has begun
            await asyncio.wait([self._trial], timeout=TRIAL_END_S)

    def observe(self, ref: str, texts: Sequence[str]) -> None:
        """End a trial, since a request has come; keep the beginnings of its texts."""
        self._stop.set()
        self._has_request.set()
        if not self._makes_copies:
            return
        used = self._use(ref)
        if used.is_done:
            used.texts.clear()
        else:
            begins = [text[:_MOST_CHARACTERS] for text in texts[-_MOST_TEXTS:]]
            used.texts.extend(text for text in begins if text not in used.texts)

    def _use(self, ref: str) -> _UsedModel:
        """Return what is known of a model; names come from requests, and a few are remembered."""
        used = self._used.setdefault(canonical_name(ref), _UsedModel())
        if len(self._used) > _MOST_MODELS:
            del self._used[next(iter(self._used))]
        return used

    async def _run(self) -> None:
        if self._makes_copies:
            await asyncio.to_thread(remove_left_parts, self._pool.settings)
        idle_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            # Whether nothing runs, waits or loads; count the time of what computes.
            stats = self._pool.stats()
            for model in stats.resident:
                if model.n_running:
                    self._use(model.name).computed_s += LOOK_S
            is_still = all(model.state == "ready" and not model.n_users for model in stats.resident)
            is_idle = is_still and not stats.n_waiting
            idle_s = idle_s + LOOK_S if is_idle else 0.0
            self._stop = TuningStop()  # set by requests that come from now on
            self._has_request.clear()
            if idle_s >= IDLE_S and await self._measure_again():
                idle_s = 0.0
            for name, used in list(self._used.items()):
                if idle_s < IDLE_S or used.is_done:
                    continue
                try:
                    is_tried = await self._tried(name, used, idle_s)
                except Exception:  # a fault of ours in the trial of one: the others' turn comes
                    log.exception("%s is not tuned", name)
                    is_tried = used.is_done = True
                idle_s = 0.0 if is_tried else idle_s

    async def _measure_again(self) -> bool:
        """Measure a loaded model again if its time has come; return whether that began."""
        now = asyncio.get_running_loop().time()
        for digest in self._pool.disturbed():
            measured = self._measured.setdefault(digest, _Measured())
            if measured.n_times == MOST_MEASUREMENTS or now < measured.next_at:
                continue
            measured.n_times += 1
            measured.next_at = now + MEASURE_AGAIN.pause_s(measured.n_times)
            log.info("%s is measured again: other programs disturbed that before", digest[:12])
            with suppress(EngineError, WorkerGone, StopRequested):  # its next turn comes
                await unless(self._pool.measure_again(digest), self._has_request)
            return True
        return False

    async def _tried(self, name: str, used: _UsedModel, idle_s: float) -> bool:
        """Try a model if its time has come; return whether a trial began."""
        try:
            facts = await self._pool.facts(ModelSpec(name))
            request = await asyncio.to_thread(self._request, facts, used, idle_s)
        except (EngineError, OSError) as error:
            log.info("%s is not tuned: %s", name, error)
            used.is_done = True
            return False
        if request is None or request.stop.is_set:
            return False
        log.info("%s: trying faster formats in the background", facts.name)
        try:
            report = partial(log.debug, "%s: %s", facts.name)
            trial = asyncio.to_thread(tune, request, self._pool.settings, report)
            self._trial = asyncio.ensure_future(trial)
            self._trial.add_done_callback(lambda done: done.cancelled() or done.exception())
            made = await asyncio.shield(self._trial)
        except (TuningBusy, TuningInterrupted) as error:
            log.info("%s", error)
        except (EngineError, OSError) as error:
            used.is_done = True
            is_usual = isinstance(error, TuningRefused)
            reason = error.reason if isinstance(error, TuningRefused) else error
            log.log(
                logging.INFO if is_usual else logging.WARNING,
                "%s has no tuned copy: %s", facts.name, reason,
            )  # fmt: skip
        else:
            used.is_done = True
            log.info("%s is computed in %s from now on", facts.name, made.label)
            await self._load_copy(facts)
        return True

    def _request(self, facts: ModelFacts, used: _UsedModel, idle_s: float) -> TuningRequest | None:
        """Return the trial of a model; None: not now, or never."""
        place = tuning_place(self._pool.settings, self._n_threads)
        known = self._store.verdict(facts.digest, place) or TuningVerdict(facts.name, place)
        header = read_header(Path(facts.path))
        # What cannot be compared with exact arithmetic is made only when the user asks for it.
        mode = self._pool.settings.tune
        is_trial = mode == "ask" or not can_be_judged(header)
        is_final = mode != "near" or known.is_near or not known.place  # undone by the user
        is_answered = bool(known.text) and (is_trial or not known.is_advice) and is_final
        can_be_tuned = facts.role != "rerank" and facts.tuned_from is None
        used.is_done = is_answered or not can_be_tuned or known.n_attempts >= MOST_ATTEMPTS
        if used.is_done or not _is_due(header, used, idle_s / 2**known.n_attempts):
            return None
        own = tuple(used.texts) if sum(map(len, used.texts)) >= _ENOUGH_CHARACTERS else ()
        return TuningRequest(
            facts,
            None,
            self._n_threads,
            own or example_texts(),
            n_documents=len(own),
            least_gain=LEAST_GAIN,
            is_background=True,
            is_trial=is_trial,
            is_near=mode == "near",
            stop=self._stop,
        )

    async def _load_copy(self, facts: ModelFacts) -> None:
        """Load the copy if its original was in memory; go back to the original if it cannot be."""
        digests = {model.digest: model for model in self._pool.stats().resident}
        loaded = digests.get(facts.digest)
        if loaded is None:
            return
        try:
            await self._pool.unload(facts.name)
            await self._pool.load(
                ModelSpec(facts.name, facts.role, keep_alive_s=loaded.keep_alive_s)
            )
        except EngineError as error:
            self._store.forget(facts.digest)
            place = tuning_place(self._pool.settings, self._n_threads)
            why = f"it could not be loaded: {error}"
            verdict = TuningVerdict(facts.name, place, why, original_path=facts.path)
            self._store.keep_verdict(facts.digest, verdict)
            log.warning("%s", verdict.sentence)


def _is_due(header: GgufHeader, used: _UsedModel, idle_s: float) -> bool:
    """Return whether the model was used enough, the machine was idle enough, and memory is free.

    Copies in the largest format are in memory together, with their caches.
    """
    is_wide = may_be_f16(header)
    if idle_s < IDLE_S or not (is_wide or used.computed_s >= COMPUTED_S):
        return False
    return read_memory().free_bytes >= 3 * copy_bytes(header, "F16" if is_wide else "Q8_0")
