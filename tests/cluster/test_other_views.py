"""Machines of which one sees or has something else than the others: nothing is mixed or lost."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paddock.runner.progress.prefect_view import SHARE_TAG
from tests.cluster.three_workers import (
    AUTH,
    NAMESPACE,
    PIPELINE,
    WAIT_S,
    Cluster,
    Counting,
    Servers,
    cluster,
    until,
)
from tests.prefect_server import prefect_client

pytestmark = pytest.mark.may_take(180, "up to four runs on machines that are started one by one")
N = 12
TEXTS = {f"{number:04}.txt": f"About: Letter {number:04}." for number in range(N)}

Mounts = Callable[[Cluster], dict[Path, Path]]


def _other_inbox(made: Cluster) -> dict[Path, Path]:
    shutil.copytree(made.shared / "inbox", made.home / "old")
    (made.home / "old" / "0003.txt").write_text("Another letter.")
    return {made.shared / "inbox": made.home / "old"}


def _local_outputs(made: Cluster) -> dict[Path, Path]:
    (made.shared / "out").mkdir()
    (made.home / "local").mkdir()  # on the odd machine's own disk
    return {made.shared / "out": made.home / "local"}


@contextmanager
def machines(shared_servers: Servers, delay_s: float = 0.05) -> Iterator[tuple[Cluster, Counting]]:
    models = Counting(delay_s)
    with models.serving(), cluster(N, models.url, shared_servers=shared_servers) as made:
        yield made, models


def outputs(made: Cluster) -> dict[str, str]:
    return {path.name: path.read_text() for path in (made.shared / "out").glob("0*.txt")}


def online(made: Cluster) -> set[str]:
    pool = made.environment["PADDOCK_WORK_POOL"]
    with prefect_client(made.environment["PREFECT_API_URL"], AUTH) as api:
        found = api.post(f"/work_pools/{pool}/workers/filter", json={}).raise_for_status().json()
    return {one["name"] for one in found if one["status"] == "ONLINE"}


def until_online(made: Cluster, *names: str) -> None:
    until(lambda: set(names) <= online(made), "workers")


def has_namespaces() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize(("mounts", "folder"), [(_other_inbox, "inbox"), (_local_outputs, "out")])
def test_a_machine_that_sees_another_folder_ends_only_itself(
    shared_servers: Servers, mounts: Mounts, folder: str
) -> None:
    if not has_namespaces():
        pytest.skip("NOT TRIED: no mount namespaces here")
    with machines(shared_servers) as (made, _):
        odd = mounts(made)
        made.join("odd", mounts=odd)
        alone = made.paddock("cluster", "run", "pipeline.yaml")
        assert alone.wait(WAIT_S) == 1
        assert "odd takes no part: on " in made.log("laptop")
        assert f"the folder '{folder}' is another one on this machine" in made.log("laptop")
        assert outputs(made) == {}
        assert [name for what in odd.values() for name in TEXTS if (what / name).exists()] == (
            list(TEXTS) if mounts is _other_inbox else []
        )

        made.join("good")
        until_online(made, "odd", "good")
        assert made.paddock("cluster", "run", "pipeline.yaml", "--shares", "2").wait(WAIT_S) == 0
        assert outputs(made) == TEXTS
        left = [path.name for path in made.home.rglob(".paddock-share-*")]
        assert left == []


def test_a_machine_without_the_model_takes_no_item_and_does_not_end_the_job(
    shared_servers: Servers,
) -> None:
    with machines(shared_servers, delay_s=1.0) as (made, models):
        text = PIPELINE.replace('{ref: m, pool: {url: "URL"}}', "{ref: m}")
        (made.shared / "pipeline.yaml").write_text(text)
        made.join("odd")
        made.join("good", PADDOCK_POOL=models.url)
        until_online(made, "odd", "good")
        job = made.paddock("cluster", "run", "pipeline.yaml", "--shares", "2")
        assert job.wait(WAIT_S) == 0
        assert "odd takes no part: on " in made.log("laptop")
        assert "'m'" in made.log("laptop")
        assert outputs(made) == TEXTS


def test_a_pipeline_that_is_saved_while_machines_work_is_not_mixed_with_what_it_was(
    shared_servers: Servers,
) -> None:
    with machines(shared_servers, delay_s=1.5) as (made, _):
        file = made.shared / "pipeline.yaml"
        file.write_text(file.read_text().replace("max_parallel: 4", "max_parallel: 1"))
        made.join("first")
        job = made.paddock("cluster", "run", "pipeline.yaml")
        until(lambda: len(outputs(made)) > 0, "the first document", made.home / "laptop.log")
        file.write_text(file.read_text().replace('prompt: "{{', 'prompt: "Briefly: {{'))
        made.join("second")
        assert job.wait(WAIT_S) == 0
        assert "'pipeline.yaml' is " in made.log("laptop")
        assert outputs(made) == TEXTS
        assert made.paddock("cluster", "run", "pipeline.yaml").wait(WAIT_S) == 0
        new = {name: text.replace("About:", "About: Briefly:") for name, text in TEXTS.items()}
        assert outputs(made) == new


def test_each_machine_takes_one_share_is_told_when_lost_and_is_offline_when_stopped(
    shared_servers: Servers,
) -> None:
    with machines(shared_servers, delay_s=6.0) as (made, models):
        made.join("lost", "--max-runs", "2")
        made.join("other", "--max-runs", "2")
        until_online(made, "lost", "other")
        job = made.paddock("cluster", "run", "pipeline.yaml", "--shares", "2")
        until(lambda: len(models.asked) == 8, "both machines")  # with room for both shares in one
        made.kill("lost")
        until(lambda: "is silent; after 6 s others take over its items" in made.log("laptop"), "it")
        assert job.wait(WAIT_S) == 0
        assert outputs(made) == TEXTS
        assert made.stop("other") == 0
        assert "other" not in online(made)
        until(
            lambda: any("each: 12 items to do" in logs(made, run) for run in shares(made)), "logs"
        )


def shares(made: Cluster) -> list[str]:
    with prefect_client(made.environment["PREFECT_API_URL"], AUTH) as api:
        body = {"flow_runs": {"tags": {"all_": [SHARE_TAG]}}, "sort": "START_TIME_DESC"}
        found = api.post("/flow_runs/filter", json=body).raise_for_status().json()
    pool = made.environment["PADDOCK_WORK_POOL"]
    return [run["id"] for run in found if run["work_pool_name"] == pool]


def logs(made: Cluster, run: str) -> str:
    with prefect_client(made.environment["PREFECT_API_URL"], AUTH) as api:
        body = {"logs": {"flow_run_id": {"any_": [run]}}}
        found = api.post("/logs/filter", json=body).raise_for_status().json()
    return "\n".join(line["message"] for line in found)
