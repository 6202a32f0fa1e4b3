"""The servers of a pool: which have a model, which are up, whose turn it is.

A server that goes away is tried again with growing pauses; one that has come back with another
model under the same name is left out. Sends no request of a caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from paddock.engine.elsewhere.any_server import Server
from paddock.engine.elsewhere.choice import Seen, choose
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.elsewhere.member import Key, Member, key_of, pause_after
from paddock.engine.errors import EngineError, ModelBroken, NoServer, NotServed
from paddock.engine.request import ModelFacts, ModelSpec

GRACE_S = 5.0
"""So long after others have answered one that says nothing is waited for; it may come later."""
_LOADING_PAUSE_S = 1.0


class Roster:
    """Who can be asked. Lives in one event loop; `start` and `close` are its ends."""

    def __init__(
        self,
        servers: Sequence[Server],
        note: Callable[[str], None],
        *,
        reach_s: float,
        pulse_s: float,
        is_patient: bool,
    ) -> None:
        self._members = [Member(server) for server in servers]
        self._note = note
        self._reach_s = reach_s
        self._is_patient = is_patient
        """Whether servers that are all away at the start are waited for, too."""
        self._pulse_s = pulse_s
        self._specs: dict[Key, ModelSpec] = {}
        self._has_begun = False
        """Whether a model was found; before that, who is away is told all at once."""
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to watch the servers; none is asked yet."""
        self._start(self._pulses())

    async def close(self) -> None:
        """End what is watched, and every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            await member.server.aclose()

    # whose turn it is

    async def take(self, model: ModelSpec, failed_at: set[Member], *, is_brief: bool) -> Member:
        """Wait for a server that has room, and take a place there; what is brief takes none.

        Raises:
            NoServer: there has been none for too long.
        """
        key = key_of(model)
        while True:
            seen = [one.seen(key, failed_before=one in failed_at) for one in self._members]
            at = choose([_without_load(one) for one in seen] if is_brief else seen)
            if at is not None:
                self._members[at].n_running += not is_brief
                return self._members[at]
            left_s = self._left_s(model, any(one.is_up for one in self._having(key)))
            moved = self._moved
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await moved.wait()

    def _left_s(self, model: ModelSpec, has_one: bool) -> float | None:
        """Tell how long to wait yet for a server that is down; None: one is up, only full.

        Raises:
            NoServer: all have been down for too long, or those that are up have lost the model.
        """
        if has_one:
            return None
        since = [one.down_since for one in self._members if one.down_since is not None]
        if not since:
            raise NoServer(model.ref, f"{self._urls()} has it no more", 0.0)
        left_s = max(since) + self._reach_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise NoServer(model.ref, self._reasons(), self._reach_s)
        return left_s

    def n_parallel(self, key: Key) -> int:
        """Return how many requests of a model all servers compute at once; 0: none tells."""
        return sum(one.n_parallel(key) for one in self._having(key))

    def _having(self, key: Key) -> list[Member]:
        return [one for one in self._members if key in one.facts]

    def pause(self, member: Member, error: Later) -> None:
        """Let a full server be for a while."""
        loop = asyncio.get_running_loop()
        loop.call_later(member.pause(error.after_s) + 0.01, self.wake)

    def give_back(self, member: Member, *, is_brief: bool) -> None:
        """Note that a request has left a server."""
        member.n_running -= not is_brief
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # looking

    async def look(self, model: ModelSpec) -> ModelFacts:
        """Ask every server for a model; those that cannot be reached now may come later.

        Raises:
            NotServed, ModelBroken: with what the servers have, or why they cannot be used.
            NoServer: none can be reached.
        """
        key = key_of(model)
        self._specs[key] = model
        looked = await self._looked(model)
        met = [self._met(member, model, look) for member, look in looked.items()]
        errors = [error for error in met if error is not None]
        if self._is_patient and not self._having(key):
            await self._awaited(key)
        if not self._having(key):
            raise self._nobody(model, errors)
        away = [f"{one.reason}: the others go on." for one in self._members if not one.is_up]
        for told in (*map(str, errors), *away):
            self._note(told)
        self._has_begun = True
        facts = [one.facts[key] for one in self._having(key)]
        return replace(facts[0], n_ctx_tokens=min(one.n_ctx_tokens for one in facts))

    async def _awaited(self, key: Key) -> None:
        """Wait for the first server that has a model, as long as one may come yet."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._reach_s):
                while not self._having(key) and not all(one.is_up for one in self._members):
                    self._note(f"{self._reasons()}: waiting.")
                    await self._moved.wait()

    async def _looked(self, model: ModelSpec) -> dict[Member, asyncio.Task[ModelFacts]]:
        """Ask all that are up at the same time; gives, in their order, how each answered."""
        looks = {
            member: asyncio.create_task(self._loaded(member, model))
            for member in self._members
            if member.is_up
        }
        left, has_one = set(looks.values()), False
        try:
            while left:
                done, left = await asyncio.wait(
                    left, timeout=GRACE_S if has_one else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                has_one = has_one or any(one.exception() is None for one in done)
        finally:
            for one in left:
                one.cancel()
        await asyncio.gather(*looks.values(), return_exceptions=True)
        return looks

    def _met(
        self, member: Member, model: ModelSpec, look: asyncio.Task[ModelFacts]
    ) -> EngineError | None:
        """Take up what one server told of a model; gives why it is not used, if that is said."""
        if look.cancelled():
            self.fell(member, f"{member.server.url} has not answered within {GRACE_S:g} s")
            return None
        try:
            self._know(member, model, look.result())
        except (Away, Later) as error:
            self.fell(member, error.reason)
        except EngineError as error:
            return error
        return None

    async def _loaded(self, member: Member, model: ModelSpec) -> ModelFacts:
        """Ask a server for a model, waiting for one that has only just been started."""
        until = asyncio.get_running_loop().time() + self._reach_s
        while True:
            try:
                return await member.look(model)
            except Later as error:
                if asyncio.get_running_loop().time() >= until:
                    raise
                self._note(f"{error.reason}: waiting for it.")
                await asyncio.sleep(error.after_s or _LOADING_PAUSE_S)

    def _know(self, member: Member, model: ModelSpec, facts: ModelFacts) -> None:
        """Take it that a server has a model.

        Raises:
            ModelBroken: another one than the first server that was asked.
        """
        key = key_of(model)
        others = (one for one in self._members if one is not member and key in one.facts)
        for other in others:
            if other.facts[key].identity != facts.identity:
                why = f"it has another model under the name '{model.ref}' than {other.server.url}"
                member.facts.pop(key, None)
                raise ModelBroken(member.server.url, f"{why}; it is left out")
        if member.facts.setdefault(key, facts).identity != facts.identity:
            del member.facts[key]
            why = f"another model has come under the name '{model.ref}'; it is left out"
            raise ModelBroken(member.server.url, why)

    def _nobody(self, model: ModelSpec, errors: Sequence[EngineError]) -> EngineError:
        """Say why no server can be asked."""
        away = [one for one in self._members if not one.is_up]
        if not errors or away:
            return NoServer(model.ref, self._reasons() or str(errors[0]), 0.0)
        known = dict.fromkeys(
            name for error in errors if isinstance(error, NotServed) for name in error.known
        )
        if len(self._members) > 1 and all(isinstance(error, NotServed) for error in errors):
            return NotServed(model.ref, tuple(known), self._urls())
        return errors[0]

    def _reasons(self) -> str:
        return "; ".join(one.reason for one in self._members if not one.is_up)

    def _urls(self) -> str:
        return ", ".join(one.server.url for one in self._members)

    # coming and going

    def fell(self, member: Member, reason: str) -> None:
        """Note that a server is gone; from now on it is tried again."""
        if member.fell(reason):
            others = any(one.is_up for one in self._members)
            what = "the others go on" if others else "it is tried again"
            self._note(f"{reason}: {what}.") if self._has_begun else None
            self._start(self._recover(member))
        self.wake()

    async def _recover(self, member: Member) -> None:
        """Try a server again until it is back with the models that it had."""
        n_tries = 0
        while not member.is_up:
            n_tries += 1
            await asyncio.sleep(pause_after(n_tries))
            with suppress(Away, Later):
                for spec in tuple(self._specs.values()):
                    try:
                        self._know(member, spec, await member.look(spec, anew=True))
                    except EngineError as error:
                        member.facts.pop(key_of(spec), None)
                        self._note(str(error))
                member.rose()
                self._note(f"{member.server.url} is there.")
        self.wake()

    async def _pulses(self) -> None:
        """While something runs, see whether the servers still answer."""
        while True:
            await asyncio.sleep(self._pulse_s)
            specs = list(self._specs.values())
            busy = [one for one in self._members if one.is_up and one.n_running]
            fell = await asyncio.gather(*(one.pulse(specs) for one in busy))
            for member, has_fallen in zip(busy, fell, strict=True):
                if has_fallen:
                    self._start(self._recover(member))
                    self._note(f"{member.reason}: its requests go to others.")
            self.wake()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _without_load(one: Seen) -> Seen:
    """See a server as one that has nothing to do."""
    return replace(one, n_running=0)
