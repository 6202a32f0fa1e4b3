"""Send the notifications of what no run can tell itself: a crash too many, a broken ledger."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from paddock.pipelines.errors import PipelineError
from paddock.runner.notify.tell import crashed, tell_of
from paddock.runner.secrets import resolve
from paddock.runner.settings import read_settings

from .jobs import Post

log = logging.getLogger("paddock.up")


async def tell_given_up(flags: Mapping[str, object], post: Post, run: str, words: str) -> None:
    """Tell those whom `on.notify` names of a run; `flags` are settings given by hand."""
    log.error("%s: run %s is given up: %s", post.standing.pipeline.name, run, words)
    await tell_trouble(flags, post, words, run)


async def tell_trouble(flags: Mapping[str, object], post: Post, words: str, run: str = "") -> None:
    """Tell those whom `on.notify` names that runs of a pipeline fail, and why."""
    bound, name = post.standing.bound, post.standing.pipeline.name
    if bound is None:
        return
    settings = read_settings(post.standing.file.parent, flags=flags)
    try:
        secrets = resolve(bound.pipeline, os.environ)
    except PipelineError as error:
        log.warning("%s: nobody is told: %s", name, error)
        return
    for untold in await tell_of(bound, crashed(name, run, words), None, settings, secrets):
        log.warning("%s: %s", name, untold)
