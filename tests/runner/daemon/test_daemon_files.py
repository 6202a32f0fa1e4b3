"""Where the local service is found, and that no one else gets in there."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.records import asdict, replace
from paddock.engine.system.server_address import PoolAddress
from paddock.runner.daemon import daemon_files, daemon_session, service_lookup
from paddock.runner.daemon.daemon_files import DaemonInfo, make_daemon_folders, paths_of
from paddock.runner.daemon.daemon_server import DaemonState
from paddock.runner.settings import Settings, UnattendedSettings


def settings(folder: Path, **pool: object) -> Settings:
    return Settings(
        pool=PoolSettings(models_dir=folder / "m", cache_dir=folder / "c", **pool),  # type: ignore[arg-type]
        state_dir=folder,
    )


def test_other_settings_of_the_pool_or_another_version_mean_another_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_of(settings(tmp_path))
    assert paths_of(settings(tmp_path)) == paths
    assert paths_of(replace(settings(tmp_path), is_debug=True)) == paths
    assert paths_of(settings(tmp_path, num_parallel=3)).name != paths.name
    monkeypatch.setattr(daemon_files, "own_version", lambda: "9.9.9")
    assert paths_of(settings(tmp_path)).name != paths.name


def test_a_service_that_is_started_has_the_settings_of_what_starts_it(tmp_path: Path) -> None:
    changed = replace(
        settings(tmp_path, keep_alive_s=-1.0, draft_models={"a": "b"}, n_threads=2),
        unattended=UnattendedSettings(service_idle_s=7.0),
    )
    read = daemon_files.decode_start_options(daemon_files.encode_start_options(changed))
    assert paths_of(read) == paths_of(changed)
    assert read.unattended.service_idle_s == 7.0


def test_its_folder_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "residence").mkdir(mode=0o755)
    where = make_daemon_folders(paths_of(settings(tmp_path)))
    assert where.folder.stat().st_mode & 0o777 == 0o700


def test_a_long_path_has_its_socket_elsewhere_and_alone(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 60) / ("b" * 60)
    where = make_daemon_folders(paths_of(settings(long)))
    assert len(os.fsencode(where.socket)) <= daemon_files.MOST_SOCKET_LETTERS
    assert where.socket.parent.stat().st_mode & 0o777 == 0o700
    assert where.socket != paths_of(settings(long / "c")).socket


def test_a_record_without_anybody_behind_its_socket_is_no_ones(tmp_path: Path) -> None:
    where = make_daemon_folders(paths_of(settings(tmp_path)))
    daemon = DaemonInfo(tmp_path, where.socket, "1", 1)
    files.write_json_atomically(where.record, asdict(daemon))
    assert where.record.stat().st_mode & 0o777 == 0o600
    assert daemon_files.find_daemon(settings(tmp_path)) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where.socket))
        assert daemon_files.find_daemon(settings(tmp_path)) is None
        listener.listen()
        assert daemon_files.find_daemon(settings(tmp_path)) == daemon
        assert daemon_files.running_daemons(tmp_path) == [daemon]


@pytest.mark.skipif(os.getuid() != 0, reason="NOT tried: only root can make another user's socket")
def test_a_socket_of_another_user_is_not_ours(tmp_path: Path) -> None:
    """It may lie in the system's temporary folder, where anyone can make one that is gone."""
    where = make_daemon_folders(paths_of(settings(tmp_path)))
    files.write_json_atomically(where.record, asdict(DaemonInfo(tmp_path, where.socket, "1", 1)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where.socket))
        listener.listen()
        assert daemon_files.find_daemon(settings(tmp_path)) is not None
        os.chown(where.socket, 54321, 54321)
        assert daemon_files.find_daemon(settings(tmp_path)) is None
        assert daemon_files.running_daemons(tmp_path) == []


def test_a_service_ends_when_no_request_is_open_and_none_was_for_long_enough() -> None:
    now = 0.0
    own = partial(DaemonState, None, None, clock=lambda: now)  # type: ignore[arg-type]
    state, without_idle = own(900.0), own(0.0)
    assert not without_idle.is_over  # what started it has yet to come
    with state.request(), state.request():
        now = 5000.0
        assert (state.is_over, state.quiet_s) == (False, 0)
        state.is_retired = True
        assert not state.is_over
    assert state.is_over and without_idle.is_over
    state.is_retired = False
    now = 5899.0
    assert not state.is_over
    now = 5900.0
    assert state.is_over


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("end", [b"", HEAD + b"0\r\n\r\n"], ids=["killed", "ending"])
async def test_a_service_that_goes_is_looked_for_again_and_reported_once_if_a_run_held_it(
    end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may seem to listen for a moment: leases of two are refused at once."""
    gone = [True, True, False, True, True, False, True, True, False]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_gone = gone.pop(0)
        writer.write(end if is_gone else HEAD + b"3\r\n{}\n\r\n")
        await writer.drain()
        if not is_gone:
            await reader.read(100)
            await reader.read()  # until the session lets go
        writer.close()

    found = DaemonInfo(tmp_path, tmp_path / "s", "1", os.getpid())
    told: list[str] = []

    async def found_again(*_: object) -> DaemonInfo:
        return found

    def ask() -> None:
        with service_lookup.service_for_command(settings(tmp_path), "./vec.gguf") as client:
            assert client.url == "http://localhost"

    monkeypatch.setattr(daemon_session, "ensure_daemon", found_again)
    monkeypatch.setattr(service_lookup, "ensure_daemon", found_again)
    monkeypatch.setattr(daemon_files, "is_listening", lambda socket: True)
    async with await asyncio.start_unix_server(serve, found.socket):
        session = daemon_session.DaemonSession(settings(tmp_path), told.append)
        await session.attach()
        assert told == []
        await session.place(PoolAddress(socket=found.socket))
        await session.detach()
        assert told == ["The local service went away; the run continues with another one."]
        await asyncio.to_thread(ask)  # a command, such as `chat`, is not told
    assert gone == []


async def test_a_run_is_told_of_another_service_though_the_killed_one_seems_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [DaemonInfo(tmp_path, tmp_path / "s", "1", pid) for pid in (1, 2, 2)]
    told: list[str] = []

    async def found_again(*_: object) -> DaemonInfo:
        return held.pop(0)

    @asynccontextmanager
    async def lease(_: DaemonInfo) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(daemon_session, "ensure_daemon", found_again)
    monkeypatch.setattr(daemon_session, "hold_lease", lease)
    monkeypatch.setattr(daemon_files, "is_listening", lambda socket: True)
    session = daemon_session.DaemonSession(settings(tmp_path), told.append)
    await session.attach()
    for _ in range(2):
        await session.place(PoolAddress(socket=tmp_path / "s"))
    assert told == ["The local service went away; the run continues with another one."]
