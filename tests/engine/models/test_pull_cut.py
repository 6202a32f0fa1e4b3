"""Pulls that something cuts short: wires, kills, full disks, other pulls. They are gone on with."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.pull import pull
from paddock.engine.models.transfer import ProgressLine
from paddock.engine.models.transfer_errors import (
    DiskRanFull,
    NotEnoughDiskSpace,
    TransferInterrupted,
)
from tests.engine.models.pulling import BIG, QUICK, leftovers, model_of, named, pulled
from tests.fakes.far_side import FarSide, digest_of
from tests.waiting import PATIENCE_S


def test_cut_connections_go_on_where_they_were_cut(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.cuts = [7_000] * 6
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert far.sent(digest_of(BIG)) == len(BIG), "no byte came twice"


def test_a_connection_that_stands_still_is_made_again(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.stalls = 2
    pulled(store, named(far), stall_s=0.3)
    assert model_of(store, named(far)) == BIG


def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(
    far: FarSide, store: ModelStore
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.cuts = [0] * 100
    with pytest.raises(TransferInterrupted) as caught:
        pulled(store, named(far))
    assert caught.value.host == far.host
    assert str(caught.value).endswith("Try again; it continues where it stopped.")
    assert store.names() == []
    assert not store.blobs.has(digest_of(BIG))
    assert any(name.endswith("-partial") for name in leftovers(store))


def test_servers_troubles_pass(far: FarSide, store: ModelStore) -> None:
    path = far.publish("team/mini", "v1", model=BIG)
    far.statuses[path] = [503, 429]
    far.statuses[f"/v2/team/mini/blobs/{digest_of(BIG)}"] = [500, 502]
    assert pulled(store, named(far))[-1].status == "success"


def test_two_pulls_at_once_bring_a_model_once(far: FarSide, store: ModelStore) -> None:
    far.bytes_per_s = 30_000
    far.publish("team/mini", "v1", model=BIG)

    async def pull_once() -> list[ProgressLine]:
        return [line async for line in pull(store, named(far), options=QUICK)]

    async def main() -> list[list[ProgressLine]]:
        return list(await asyncio.gather(pull_once(), pull_once()))

    both = asyncio.run(main())
    assert [lines[-1].status for lines in both] == ["success", "success"]
    assert far.sent(digest_of(BIG)) == len(BIG)
    for lines in both:
        counts = [line.completed for line in lines if line.digest and line.completed]
        assert len(set(counts)) > 2, "the one that waits sees the other one's progress"


KILLED = """
import asyncio, sys
from pathlib import Path
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.pull import pull
from tests.engine.models.pulling import QUICK

async def main():
    async for line in pull(ModelStore(Path(sys.argv[1])), sys.argv[2], options=QUICK):
        if line.completed:
            print(line.completed, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_pull_is_gone_on_with(
    far: FarSide, store: ModelStore, how: signal.Signals
) -> None:
    far.bytes_per_s = 20_000
    far.publish("team/mini", "v1", model=BIG)
    command = [sys.executable, "-c", KILLED, str(store.root), str(named(far))]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 20_000:
            pass
        process.send_signal(how)
        process.wait(timeout=PATIENCE_S)
    assert store.names() == []
    assert not store.blobs.has(digest_of(BIG))
    far.settle()
    before = far.sent(digest_of(BIG))
    far.bytes_per_s = 0
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert far.sent(digest_of(BIG)) - before <= len(BIG) - 20_000
    assert leftovers(store) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from pathlib import Path
from paddock.engine.models.model_store import ModelStore
from tests.engine.models.pulling import pulled
pulled(ModelStore(Path(sys.argv[1])), sys.argv[2])
"""


def test_a_disk_that_is_full_in_the_middle_is_said_plainly(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    command = [sys.executable, "-c", LIMITED, str(store.root), str(named(far))]
    root = Path(__file__).parents[3]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"{DiskRanFull.__module__}.DiskRanFull: no space left in {store.blobs.folder} ("
    )
    assert last.endswith(
        "What arrived is kept: free some space and try again, or set PADDOCK_MODELS to another "
        "disk."
    )
    assert store.names() == []
    assert not store.blobs.has(digest_of(BIG))
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG


def test_room_is_looked_for_before_anything_is_brought(far: FarSide, store: ModelStore) -> None:
    path = far.publish("team/mini", "v1", model=BIG)
    manifest = far.files[path].replace(str(len(BIG)).encode(), str(10**16).encode())
    far.files[path] = manifest
    with pytest.raises(NotEnoughDiskSpace) as caught:
        pulled(store, named(far))
    assert caught.value.needed_bytes == 10**16
    assert "but 10000000.0 GB are needed. Free some space" in str(caught.value)
    assert far.sent(digest_of(BIG)) == 0
