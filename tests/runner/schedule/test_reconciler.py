"""What schedules put into the queue, in a real Prefect server."""

from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.schedule.prefect_queue import PrefectQueue, QueuedRun, QueueError, open_queue
from paddock.runner.schedule.reconciler import Reconciler
from paddock.runner.schedule.run_manager import Deployment, ManagerOptions, RunManager
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.webhook_queue import AcceptedCall, WebhookQueue
from paddock.runner.schedule.webhook_runs import WebhookRuns
from paddock.runner.settings import Settings

SIGNER = Signer(b"the key of these tests")
STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"


def triggered(folder: Path, schedule: str) -> TriggeredPipeline:
    text = f"name: {folder.name}\non: {{schedule: [{schedule}]}}\n{STEPS}"
    made = read_triggered_pipeline(folder / "p.yaml", text, Settings(PoolSettings(), folder))
    assert made is not None
    return made


async def put(queue: PrefectQueue, manager: RunManager, pipeline: TriggeredPipeline) -> Deployment:
    deployment = Deployment(
        pipeline, await queue.deploy(pipeline.key, pipeline.pipeline.name, pipeline.version, "")
    )
    manager.deployments[pipeline.key] = deployment
    return deployment


def manager_of(
    queue: PrefectQueue, auth_string: str = "", max_runs: int = 1, **extra: Any
) -> RunManager:
    async def given_up(deployment: Deployment, run: str, words: str) -> None:
        raise AssertionError(words)

    extra.setdefault("folder", Path(mkdtemp()))
    options = ManagerOptions(max_runs, 1, given_up, auth_string=auth_string, **extra)
    return RunManager(queue, None if auth_string else SIGNER, options)


def hours(runs: list[QueuedRun]) -> list[int]:
    return [run.at.hour for run in runs]


async def test_a_server_that_moved_is_asked_at_its_new_address(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue("http://127.0.0.1:9/api", SIGNER) as queue:
        with pytest.raises(QueueError, match="All connection attempts failed"):
            await queue.deployments()
        await queue.move(prefect_api)
        assert queue.api_url == prefect_api
        await put(queue, manager_of(queue), triggered(tmp_path, '{cron: "0 6 * * *"}'))


async def test_a_pipeline_without_a_form_in_prefect_is_in_service_all_the_same(
    tmp_path: Path, prefect_api: str
) -> None:
    async def watched(deployment: Deployment) -> None: ...

    async def changed() -> None: ...

    text = "inputs: {class: {type: str, default: a}}\n"
    text = f"name: {tmp_path.name}\n{text}on: {{schedule: [{{cron: '0 6 * * *'}}]}}\n{STEPS}"
    pipeline = read_triggered_pipeline(
        tmp_path / "p.yaml", text, Settings(PoolSettings(), tmp_path)
    )
    assert pipeline is not None
    async with open_queue(prefect_api, SIGNER) as queue:
        manager, parts = (
            manager_of(queue),
            SimpleNamespace(put=watched, accept=watched, pipelines_changed=changed),
        )
        unused: Any = None
        reconciler = Reconciler(queue, manager, parts, unused, parts, is_open=False)  # type: ignore[arg-type]
        await reconciler.reconcile({pipeline.key: pipeline})
        assert list(manager.deployments) == [pipeline.key]


HOOKED = """\
name: {name}
on: {{webhook: [{{path: /kept, inputs: {{n: "{{{{ payload.n }}}}"}}}}]}}
inputs: {{n: {{type: int, required: true}}}}
"""


def hooked(file: Path, *, name: str = "", old: str = "", new: str = "") -> TriggeredPipeline:
    """Return a pipeline with a webhook, whose file is there; `new` stands in place of `old`."""
    text = (HOOKED.format(name=name or file.parent.name) + STEPS).replace(old, new)
    file.write_text(text)
    made = read_triggered_pipeline(file, text, Settings(PoolSettings(), file.parent))
    assert made is not None
    return made


class Served:
    """What `up` has of webhooks: table, runs and pipelines in service."""

    def __init__(self, folder: Path, queue: PrefectQueue) -> None:
        async def dropped(key: str) -> None: ...

        async def watched(deployment: Deployment) -> None: ...

        parts: Any = SimpleNamespace(put=watched, drop=dropped, release=lambda folder: None)
        self.prefect, self.folder = queue, folder
        self.calls = WebhookQueue(folder)
        self.manager = manager_of(queue)
        self.runs = WebhookRuns(self.manager, self.calls)
        self.reconciler = Reconciler(queue, self.manager, parts, parts, self.runs, is_open=False)

    async def serve(self, *pipelines: TriggeredPipeline) -> None:
        await self.reconciler.reconcile({pipeline.key: pipeline for pipeline in pipelines})
        await self.runs.hand_over()
        await self.runs.hand_over()  # what is put back arrives

    async def call(self, pipeline: TriggeredPipeline, n: int) -> None:
        await self.runs.accept(
            AcceptedCall(f"{pipeline.key}:{n}", pipeline.key, "webhook /kept", {"n": n})
        )

    async def waiting(self) -> list[tuple[str, int]]:
        """Return the files and numbers of the runs that wait in Prefect."""
        files = await self.prefect.deployments()
        found = await self.prefect.open_runs(
            [id_ for id_, file in files.items() if self.is_ours(file)]
        )
        return sorted(
            (Path(files[run.deployment]).name, call["inputs"]["n"])
            for run in found
            for call in run.order.get("calls") or [{"inputs": run.order["inputs"]}]
        )

    def is_ours(self, file: str) -> bool:
        return Path(file).is_relative_to(self.folder)


async def test_accepted_calls_run_or_are_kept_whatever_becomes_of_the_file(
    tmp_path: Path, prefect_api: str
) -> None:
    file = tmp_path / "p.yaml"
    async with open_queue(prefect_api, SIGNER) as queue:
        up = Served(tmp_path, queue)
        sound = hooked(file)
        await up.serve(sound)
        for n in (1, 2):
            await up.call(sound, n)
            await up.runs.hand_over()
        given = [("p.yaml", 1), ("p.yaml", 2)]
        assert await up.waiting() == given[:1]  # the other one waits in the table
        kept = f"2 accepted webhook calls of {file} cannot run: "

        await up.serve()  # it is not in service: renamed, deleted, without triggers
        assert (await up.waiting(), up.runs.kept) == (
            [],
            {str(file): f"{kept}it is not in service."},
        )
        await up.serve(hooked(file))
        assert (await up.waiting(), up.runs.kept) == (given, {})

        await up.serve(hooked(file, name="another"))
        assert await up.waiting() == given
        for old, new, why in (
            ("/kept", "/other", "its webhook /kept is no more."),
            ("{n: {type: int", "{n: {type: dir", "input 'n' must be a path, not '2'."),
        ):
            await up.serve(hooked(file, old=old, new=new))
            assert (await up.waiting(), up.runs.kept) == ([], {str(file): kept + why})
            await up.serve(hooked(file))
            assert await up.waiting() == given

        file.unlink()
        moved = hooked(tmp_path / "moved.yaml", name=tmp_path.name)
        await up.serve(moved)
        assert await up.waiting() == [("moved.yaml", 1), ("moved.yaml", 2)]
        await up.calls.close()

        again = Served(tmp_path, queue)  # its file is broken, so it is not in service
        await again.reconciler.forget_gone([tmp_path], {})
        await again.serve()
        assert (await again.waiting(), len(again.runs.kept)) == ([], 1)
        await again.serve(hooked(tmp_path / "moved.yaml", name=tmp_path.name))
        assert await again.waiting() == [("moved.yaml", 1), ("moved.yaml", 2)]
        await again.calls.close()
