"""Bring deployments, watches and webhooks to what the files say. Knows no files and no clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.triggers import Webhook
from paddock.runner import secrets

from .holding import Holding
from .jobs import Post
from .office import Office
from .planner import Planner
from .standing import Standing
from .tracked import Board
from .watching import Watching
from .webhook_queue import Accepted, Answer, WebhookQueue
from .webhooks import Call, Full, Webhooks, table

MOST_HANDED_OVER = 50
"""Runs of a pipeline that wait in Prefect, at which its webhook calls stay in their own table."""


class Posting:
    """What is in service. `say` tells a person something once."""

    def __init__(
        self,
        board: Board,
        office: Office,
        planner: Planner,
        watching: Watching,
        holding: Holding,
        say: Callable[[str], None],
        *,
        calls: WebhookQueue,
        is_open: bool,
    ) -> None:
        """`is_open`: other machines reach the address at which webhooks are called."""
        self.hooks = Webhooks(self._called)
        self._board = board
        self._office = office
        self._planner = planner
        self._watching = watching
        self._holding = holding
        self._say = say
        self._calls = calls
        self._is_open = is_open

    async def bring_about(self, wanted: Mapping[str, Standing], *, is_anew: bool = False) -> None:
        """Put these pipelines in service, and no others; `is_anew`: even what seems to be.

        Raises:
            TrackedError: Prefect is away; another call does the rest.
        """
        posts = self._office.posts
        for key in [key for key in posts if key not in wanted]:
            await self._withdraw(posts[key], wanted)
        for key, standing in wanted.items():
            if is_anew or key not in posts or posts[key].standing is not standing:
                await self._put(key, standing)
        self.serve_hooks([post.standing for post in posts.values()])

    def serve_hooks(self, standing: Sequence[Standing]) -> None:
        """Take calls of these pipelines, and of no others; they need not be in service yet."""
        hooks, told = table(standing, self._secret)
        self.hooks.hooks = hooks
        for words in told:
            self._say(words)

    async def _put(self, key: str, standing: Standing) -> None:
        """Put a pipeline in service, or its new form in the place of the old one."""
        posts, pipeline = self._office.posts, standing.pipeline
        made = await self._board.deploy(key, pipeline.name, standing.version, pipeline.description)
        old, post = posts.get(key), Post(standing, made)
        if old is not None and old.deployment != made:  # it has another name now
            await self._board.undeploy(old.deployment)
        await self._planner.forget(post, await self._board.open_runs([made]))
        posts[key] = post
        await self._watching.put(post)

    async def _withdraw(self, post: Post, wanted: Mapping[str, Standing]) -> None:
        """Take a pipeline out of service; a run at work goes on to its end."""
        key = post.standing.key
        await self._watching.drop(key)
        for run in await self._board.open_runs([post.deployment]):
            if run.phase == "waiting":
                await self._office.leave_out(run, post, "its pipeline is no longer there")
        await self._board.undeploy(post.deployment)
        self._office.posts.pop(key, None)
        folder = post.standing.file.parent.resolve()
        if not any(one.file.parent.resolve() == folder for one in wanted.values()):
            self._holding.release(folder)

    async def forget_gone(self, folders: Sequence[Path]) -> None:
        """Take away deployments of files below our folders that are no longer there.

        Raises:
            TrackedError: Prefect is away.
        """
        for id_, file in (await self._board.deployments()).items():
            if await asyncio.to_thread(_is_gone, Path(file), folders):
                await self._board.undeploy(id_)

    async def _called(self, call: Call) -> Answer:
        """Write a webhook's call down.

        Raises:
            Full: no more of this pipeline now.
            QueueBroken: it cannot be written.
        """
        key = call.standing.key
        if self._office.is_stopping:
            raise Full("`paddock up` is being ended.")
        if self._calls.is_full(key):
            raise Full("too many calls of this pipeline wait already.")
        return await self._calls.put(Accepted(f"{key}:{call.key}", key, call.trigger, call.inputs))

    async def hand_over(self) -> None:
        """Let Prefect have calls that were written down, the oldest first.

        Each becomes a flow run by the call's own key, so one that is handed over again after a
        crash is the same run. Prefect gets a few at a time: with hundreds of waiting runs each of
        its answers takes seconds.

        Raises:
            TrackedError: Prefect is away; another call does the rest.
            QueueBroken: the table cannot be read or written.
        """
        self._calls.arrived.clear()
        for key in [key for key, n in self._calls.waiting.items() if n > 0]:
            post = self._office.posts.get(key)
            if post is None:  # its file may come back
                continue
            n_free = MOST_HANDED_OVER - self._office.n_waiting(post)
            for call in await self._calls.oldest(key, n_free) if n_free > 0 else ():
                made = await self._office.submit(
                    post,
                    call.trigger,
                    f"{post.deployment}:{call.id}",
                    inputs=call.inputs,
                    at=datetime.fromtimestamp(call.received_at, UTC),
                    words="called by its webhook",
                )
                await self._calls.queued(call, made.id)
                if made.phase == "waiting":
                    self._office.queue.append(made)
                self._office.wake.set()

    def _secret(self, standing: Standing, webhook: Webhook) -> str | None:
        """Give a webhook's secret, filled in.

        Raises:
            PipelineError: it cannot be, or there is none where strangers may call.
        """
        at = ("on", "webhook", standing.webhooks.index(webhook), "secret")
        if webhook.secret is None:
            if not self._is_open:
                return None
            what = f"webhook '{webhook.path}' has no secret, and other machines may call it."
            raise PipelineError(
                [Fault(what, "Give it a `secret`.", standing.pipeline.mark(at[:-1]))]
            )
        scope: dict[str, object] = {"inputs": {}}
        if "secrets" in webhook.secret:
            scope["secrets"] = secrets.resolve(standing.pipeline, os.environ).values
        return str(standing.rendered(webhook.secret, scope, at))


def _is_gone(file: Path, folders: Sequence[Path]) -> bool:
    """Tell whether a file below some folders is gone, rather than its whole folder."""
    is_ours = any(file.is_relative_to(folder.absolute()) for folder in folders)
    return is_ours and not file.exists() and file.parent.exists()
