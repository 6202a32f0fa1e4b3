"""How everything stands, as plain data: what `/status` shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .jobs import Post
    from .office import Office
    from .planner import Planner
    from .tracked import Tracked
    from .watching import Watching

MOST_SHOWN, MOST_NAMED = 200, 10


def named(pipelines: Collection[str]) -> str:
    """Name pipelines in a line.

    >>> named(["b", "a"]), named([]), named([str(n) for n in range(10, 30)])[-11:]
    ('a, b', 'no pipeline with `on:` yet', '19, 10 more')
    """
    names = sorted(pipelines)
    more = len(names) - MOST_NAMED
    told = [*names[:MOST_NAMED], f"{more} more"] if more > 1 else names
    return ", ".join(told) or "no pipeline with `on:` yet"


def told_of(office: Office, planner: Planner, watching: Watching) -> dict[str, Any]:
    """Return pipelines, the runs that run, and the runs that wait.

    As with requests to a model, a run that has been started but has not been let in yet (another
    run has its folder, or its group's turn) waits.
    """
    names = {post.deployment: post.standing.pipeline.name for post in office.posts.values()}
    not_let_in = [job for job in office.jobs.values() if job.running.waits_for]
    return {
        "pipelines": [_about(post, office, planner, watching) for post in office.posts.values()],
        "running": [job.as_json() for job in office.jobs.values() if job not in not_let_in],
        "waiting": len(not_let_in) + len(office.queue),
        "queue": [
            *(
                _queued(job.tracked, names) | {"state": job.running.waits_for, **job.as_json()}
                for job in not_let_in
            ),
            *(_queued(run, names) for run in office.queue[:MOST_SHOWN]),
        ],
    }


def _queued(run: Tracked, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "flow_run": run.id,
        "pipeline": names.get(run.deployment),
        "trigger": run.parameters.get("trigger"),
        "at": run.at.isoformat(),
        "not_before": run.next_at.isoformat(),
        "state": run.shown,
    }


def _about(post: Post, office: Office, planner: Planner, watching: Watching) -> dict[str, Any]:
    standing, now = post.standing, datetime.now(UTC)
    window = standing.window
    return {
        "name": standing.pipeline.name,
        "file": standing.key,
        "next": planner.next_times(standing.key, now),
        "window": str(window) if window else None,
        "is_open": window.is_open(now) if window else True,
        "watches": watching.status(standing.key),
        "missing": office.missing.get(standing.key, ()),
        "webhooks": [one.path for one in standing.webhooks],
    }
