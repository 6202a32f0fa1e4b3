"""What a second user of the machine can do while `paddock up` runs: nothing that counts.

`up` runs with a Prefect server of its own. Where the tests run as root, a process with another
user's number tries; where not, what any process can try over the network is tried all the same.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from paddock.runner.daemon.prefect_auth import password_file
from tests.residence import own_headers
from tests.runner.schedule.up_process import UpFolder
from tests.waiting import PATIENCE_S

SECOND_USER = 54321
Found = TypeVar("Found")
NOTES = """\
name: notes
on: {schedule: [{cron: "0 6 1 1 *"}]}
inputs: {inbox: {type: dir, default: ./inbox}, greeting: {type: str, default: Seen}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.inbox }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ inputs.greeting }}: {{ steps.text.text }}"}
"""
THEIRS = """\
name: theirs
steps: [{uses: files.write, with: {path: out/mark, text: done}}]
"""

as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="a second user was NOT tried: only root can be another user"
)


@pytest.fixture(scope="module")
def up() -> Iterator[UpFolder]:
    """Run `up` in a folder that every user can enter, with state as Paddock itself makes it."""
    root = Path(tempfile.mkdtemp(prefix="paddock-strangers-"))
    root.chmod(0o755)
    folder = root / "pipes"
    folder.mkdir()
    up = UpFolder(folder)
    try:
        up.write("notes/pipeline.yaml", NOTES)
        up.write("notes/inbox/a.txt", "ferry")
        (root / "theirs").mkdir()
        (root / "theirs/pipeline.yaml").write_text(THEIRS)
        up.start()
        up.until(lambda: up.get()["is_prefect_there"])  # its own server comes up beside
        yield up
    finally:
        up.stop()
        shutil.rmtree(root, ignore_errors=True)


def home(up: UpFolder) -> Path:
    return up.folder.parent / "home"


def api(up: UpFolder) -> str:
    return str(up.get()["prefect"])


def post(up: UpFolder, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=False, timeout=PATIENCE_S) as client:
        return client.post(f"{api(up)}{path}", json=body, headers=headers)


def as_owner(up: UpFolder, path: str, body: dict[str, Any]) -> Any:
    """Ask again as Prefect's client does: a busy server's database is locked for a moment (503)."""
    answer = up.until(lambda: is_taken(post(up, path, body, **own_headers(home(up)))))
    assert answer is not None
    return answer.raise_for_status().json()


def is_taken(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer


def started(up: UpFolder, **parameters: Any) -> tuple[str, str]:
    """Start a run as on Prefect's page; return the last state's name and its message."""
    query = {"deployments": {"tags": {"all_": ["paddock"]}}}
    (deployment,) = as_owner(up, "/deployments/filter", query)
    path = f"/deployments/{deployment['id']}/create_flow_run"
    made = as_owner(up, path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})

    def ended() -> tuple[str, str] | None:
        (run,) = as_owner(up, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [made["id"]]}}})
        state = run["state"]
        is_over = state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
        return (state["name"], state["message"] or "") if is_over else None

    return up.until(ended)  # type: ignore[return-value]


def test_prefects_api_asks_for_a_password(up: UpFolder) -> None:
    run = {"flow_id": "00000000-0000-0000-0000-000000000000", "parameters": {}}
    for path, body in (("/flow_runs/", run), ("/flow_runs/filter", {}), ("/admin/settings", {})):
        for page in ({}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert post(up, path, body, **page).status_code == 401
        guess = httpx.BasicAuth("paddock", "guess")._auth_header
        assert post(up, path, body, Authorization=guess).status_code == 401
    assert as_owner(up, "/deployments/filter", {}) != []


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_web_sockets_are_refused_to_pages_of_others_and_without_the_password(
    up: UpFolder, path: str
) -> None:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    url = f"{api(up).replace('http', 'ws', 1)}/{path}"
    connected = partial(connect, url, proxy=None, open_timeout=PATIENCE_S)
    with pytest.raises(InvalidStatus, match="403"):
        connected(additional_headers={"Origin": "http://evil.example"})
    for wish in ({"type": "auth"}, {"type": "auth", "token": "guess"}):
        with (
            connected(subprotocols=["prefect"]) as connection,  # type: ignore[list-item]
            pytest.raises(ConnectionClosed),
        ):
            connection.send(json.dumps(wish))
            connection.recv(timeout=PATIENCE_S)


def test_a_run_of_prefects_page_has_its_inputs_checked_and_never_another_path(up: UpFolder) -> None:
    theirs = str(up.folder.parent / "theirs/pipeline.yaml")
    outside = "Refused: input 'inbox' leads outside the pipeline's folder."
    assert started(up, Paddock={"path": theirs})[0] == "Completed"  # the pipeline's own run
    assert started(up, path=theirs) == ("Failed", "Refused: the pipeline has no input 'path'.")
    assert started(up, inbox="/etc") == ("Failed", outside)
    call = {"id": "theirs", "inputs": {"inbox": "/etc"}}
    assert started(up, greeting="Found", Paddock={"calls": [call]})[0] == "Completed"
    assert up.output("notes", "a.txt") == "Found: ferry"
    assert not (up.folder.parent / "theirs/out").exists()
    assert "run '" in up.log_text()
    assert "of Prefect is refused: input 'inbox' leads outside" in up.log_text()


def of_processes(up: UpFolder, look: Callable[[psutil.Process], Found]) -> list[Found]:
    """Return what `look` finds of `up` and of each process that it runs."""
    assert up.process is not None
    parent = psutil.Process(up.process.pid)
    found = []
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            found.append(look(process))
    return found


def processes(up: UpFolder) -> list[tuple[list[str], str]]:
    """Return the command lines and environments of `up` and what it runs."""
    found = of_processes(
        up, lambda process: (process.cmdline(), "".join(process.environ().values()))
    )
    assert len(found) > 1
    return found


def files_of(folder: Path) -> list[Path]:
    """Return what is below a folder, from which running processes may remove some meanwhile."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def test_only_those_who_need_it_have_the_password_in_their_environment(up: UpFolder) -> None:
    secret = password_file(home(up)).read_text().partition(":")[2].strip()
    commands = [command for command, environment in processes(up) if secret in environment]
    # A fork of `up` has it in memory alone; a server that is started again needs it there.
    assert len(commands) <= 1
    assert all("paddock.runner.daemon.prefect_process" in command for command in commands)


@as_root
def test_a_second_user_reads_no_state_and_opens_no_socket(up: UpFolder) -> None:
    output = as_second_user(
        """
        found = []
        for place in places:
            for folder, folders, files in os.walk(place):
                for name in files:
                    try:
                        open(os.path.join(folder, name), 'rb').close()
                        found.append(os.path.join(folder, name))
                    except OSError:
                        pass
        for path in sockets:
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                found.append(path)
            except OSError:
                pass
        print(found)
        """,
        places=[str(home(up))],
        sockets=[
            *(str(file) for file in files_of(home(up)) if file.suffix == ".sock"),
            *unix_sockets(up),
        ],
    )
    assert output == "[]\n"


@as_root
def test_a_second_user_reads_no_page_that_names_folders_or_versions(up: UpFolder) -> None:
    output = as_second_user(
        """
        for port, paths in requests:
            for path in paths:
                call = http.client.HTTPConnection('127.0.0.1', port, timeout=300)
                call.request('GET', path)
                answer = call.getresponse()
                print(path, answer.status, b'pipes' in answer.read())
        """,
        requests=[
            (httpx.URL(up.url).port, ["/status", "/healthz", "/readyz"]),
            (
                httpx.URL(api(up)).port,
                ["/docs", "/redoc", "/openapi.json", "/api/docs", "/api/openapi.json", "/docs/",
                 "/api/docs/oauth2-redirect", "//docs", "/api/health"],
            ),
        ],
    )  # fmt: skip
    assert output.splitlines() == [
        "/status 403 False", "/healthz 200 False", "/readyz 200 False",
        "/docs 404 False", "/redoc 404 False", "/openapi.json 404 False", "/api/docs 404 False",
        "/api/openapi.json 404 False", "/docs/ 404 False", "/api/docs/oauth2-redirect 404 False",
        "//docs 404 False", "/api/health 200 False",
    ]  # fmt: skip


@as_root
def test_a_second_user_starts_nothing_at_any_port(up: UpFolder) -> None:
    """All ports of `up` and its processes, with each request that could start a run."""
    links = of_processes(up, lambda process: process.net_connections("tcp"))
    ports = sorted({link.laddr.port for link in chain(*links) if link.status == "LISTEN"})
    output = as_second_user(
        """
        for port in ports:
            for path in ('/run', '/runs', '/api/flow_runs/', '/api/deployments/filter', '/notes',
                         '/paddock/residence/stop', '/paddock/residence/mirror', '/api/generate'):
                call = http.client.HTTPConnection('127.0.0.1', port, timeout=300)
                try:
                    call.request('POST', path, '{}', {'Content-Type': 'application/json'})
                    print(call.getresponse().status)
                except (OSError, http.client.HTTPException):
                    print(0)
        """,
        ports=ports,
    )
    assert len(ports) >= 2
    assert set(output.split()) <= {"0", "401", "403", "404", "405"}


@as_root
def test_a_second_user_cannot_listen_where_prefect_is_started_again(up: UpFolder) -> None:
    """A server of theirs would be sent the password."""
    address, pid = api(up), prefect(up).pid
    prefect(up).kill()
    port = int(address.removesuffix("/api").rpartition(":")[2])
    output = as_second_user(
        """
        for _ in range(200):
            door = socket.socket()
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                door.bind(('127.0.0.1', port))
                door.listen()
                print('listens')
            except OSError:
                time.sleep(0.005)
        """,
        port=port,
    )
    assert output == ""
    up.until(lambda: prefect(up).pid != pid and as_owner(up, "/flow_runs/filter", {}))
    assert api(up) == address


def prefect(up: UpFolder) -> psutil.Process:
    """Return the process of the Prefect server that `up` runs."""
    assert up.process is not None

    def found() -> psutil.Process | None:
        port = int(api(up).removesuffix("/api").rpartition(":")[2])
        # `up` holds its socket, too, and the server has connections
        listening = of_processes(
            up,
            lambda process: (
                process,
                any(one.laddr and one.laddr.port == port for one in process.net_connections("tcp")),
            ),
        )
        own = None if up.process is None else up.process.pid
        return next((p for p, is_at in listening if is_at and p.pid != own), None)

    return up.until(found)  # type: ignore[return-value]


def unix_sockets(up: UpFolder) -> list[str]:
    """Return the Unix sockets of `up` and of what it started."""
    links = of_processes(up, lambda process: process.net_connections("unix"))
    return [str(link.laddr) for link in chain(*links) if link.laddr]


def as_second_user(code: str, **names: Any) -> str:
    """Run code as another user of the machine, with these names; return what it printed."""
    import textwrap

    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    head = "import http.client, os, socket, time\n"
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-c", head + given + textwrap.dedent(code)],
        user=SECOND_USER, group=SECOND_USER, extra_groups=[], cwd="/", env={"PATH": os.defpath},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
