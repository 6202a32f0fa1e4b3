from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.errors import DigestMismatch, EngineError, InvalidName
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import MODEL, Manifest
from paddock.engine.store.names import ModelName, parse_name
from paddock.engine.store.progress import Progress
from paddock.engine.store.transfer.errors import (
    HostNotTrusted,
    Interrupted,
    NotEncrypted,
    NotEnoughRoom,
    NotPublished,
    RanFull,
    Refused,
    TransferError,
    Unreachable,
    Unusable,
)
from paddock.engine.store.transfer.options import Credentials
from paddock.engine.store.transfer.pull import pull
from tests.engine.store.transfer.pulling import (
    QUICK,
    a_store,
    leftovers,
    model_of,
    named,
    pulled,
    statuses,
)
from tests.fakes.far_side import FarSide, Seen, certificate, digest_of, far_side, gguf
from tests.fakes.wires import http_proxy

BIG = gguf(100_000)


@pytest.fixture
def far() -> Iterator[FarSide]:
    with far_side() as side:
        yield side


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


def short(content: bytes) -> str:
    return digest_of(content).removeprefix("sha256:")[:12]


def test_the_lines_are_those_that_clients_of_ollama_know(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG, template=b"{{ .Prompt }}", config=b"{}")
    lines = pulled(store, named(far))
    assert statuses(lines) == [
        "pulling manifest",
        f"pulling {short(BIG)}",
        f"pulling {short(b'{{ .Prompt }}')}",
        f"pulling {short(b'{}')}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    of_model = [line for line in lines if line.digest == digest_of(BIG)]
    assert of_model[-1] == Progress(f"pulling {short(BIG)}", digest_of(BIG), len(BIG), len(BIG))
    assert model_of(store, named(far)) == BIG
    assert store.check() == []
    assert leftovers(store) == []


def test_what_is_here_is_not_brought_again(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG, template=b"a")
    pulled(store, named(far))
    before = far.sent()
    lines = pulled(store, named(far))
    assert statuses(lines)[1:3] == [f"pulling {short(BIG)}", f"pulling {short(b'a')}"]
    assert far.sent() - before == len(far.files["/v2/team/mini/manifests/v1"])


def test_a_large_blob_comes_in_parts_side_by_side(far: FarSide, store: Store) -> None:
    far.bytes_per_s = 100_000
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    blob = far.asked(digest_of(BIG))
    assert sorted(one.headers["range"] for one in blob)[0] == "bytes=0-20024"
    assert len(blob) == 5
    assert far.most_open == 4
    assert far.sent(digest_of(BIG)) == len(BIG)


def test_cut_connections_go_on_where_they_were_cut(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.cuts = [7_000] * 6
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert far.sent(digest_of(BIG)) == len(BIG), "no byte came twice"


def test_a_connection_that_stands_still_is_made_again(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.stalls = 2
    began = time.monotonic()
    pulled(store, named(far), stall_s=0.3)
    assert model_of(store, named(far)) == BIG
    assert time.monotonic() - began < 10


def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(
    far: FarSide, store: Store
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.cuts = [0] * 100
    with pytest.raises(Interrupted) as caught:
        pulled(store, named(far))
    assert caught.value.host == far.host
    assert str(caught.value).endswith("Do it again, and it goes on from where it stopped.")
    assert store.names() == []
    assert not store.has_blob(digest_of(BIG))
    assert any(name.endswith("-partial") for name in leftovers(store))


def test_servers_troubles_pass(far: FarSide, store: Store) -> None:
    path = far.publish("team/mini", "v1", model=BIG)
    far.statuses[path] = [503, 429]
    far.statuses[f"/v2/team/mini/blobs/{digest_of(BIG)}"] = [500, 502]
    assert pulled(store, named(far))[-1].status == "success"


def test_a_server_without_ranges_gives_the_whole(far: FarSide, store: Store) -> None:
    far.knows_ranges = False
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert leftovers(store) == []


def test_a_server_without_ranges_that_cuts_is_not_asked_for_ever(
    far: FarSide, store: Store
) -> None:
    far.knows_ranges = False
    far.publish("team/mini", "v1", model=BIG)
    far.cuts = [50_000] * 100
    with pytest.raises(Interrupted):
        pulled(store, named(far))
    assert len(far.asked(digest_of(BIG))) < 20


def test_a_model_that_nobody_published_is_told_as_ollama_tells_it(
    far: FarSide, store: Store
) -> None:
    with pytest.raises(NotPublished, match=r"^pull model manifest: file does not exist$"):
        pulled(store, named(far))


def test_a_wrong_digest_gives_no_blob_and_no_model(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    wrong = gguf(100_000, seed=1)
    far.files[f"/v2/team/mini/blobs/{digest_of(BIG)}"] = wrong
    with pytest.raises(DigestMismatch) as caught:
        pulled(store, named(far))
    assert (caught.value.expected, caught.value.got) == (digest_of(BIG), digest_of(wrong))
    assert store.names() == []
    assert list(store.blobs.digests()) == []
    assert leftovers(store) == []


def test_a_blob_of_another_length_is_refused_at_once(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.files[f"/v2/team/mini/blobs/{digest_of(BIG)}"] = BIG + b"more"
    with pytest.raises(Unusable, match=f"should have {len(BIG)} bytes, and has {len(BIG) + 4}"):
        pulled(store, named(far))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"lmgg" + b"\0" * 60, "an old GGML file"),
        (b"PK\x03\x04" + b"\0" * 60, "a PyTorch checkpoint"),
        (BIG[:-100], "the file is truncated"),
    ],
)
def test_what_is_no_whole_gguf_gets_no_name_and_leaves_nothing(
    far: FarSide, store: Store, content: bytes, why: str
) -> None:
    far.publish("team/mini", "v1", model=content)
    with pytest.raises(Unusable, match=why):
        pulled(store, named(far))
    assert store.names() == []
    assert list(store.blobs.digests()) == []


def test_a_model_for_another_engine_is_refused_before_it_is_brought(
    far: FarSide, store: Store
) -> None:
    far.publish("team/mini", "v1", tensor=BIG)
    with pytest.raises(
        Unusable, match=r"no GGUF model in it, but application/vnd\.ollama\.image\.t"
    ):
        pulled(store, named(far))
    assert far.sent(digest_of(BIG)) == 0


def test_a_newer_model_replaces_the_old_ones_blobs_but_not_those_of_others(
    far: FarSide, store: Store
) -> None:
    old, new = gguf(3_000, seed=1), gguf(3_000, seed=2)
    far.publish("team/mini", "v1", model=old, template=b"shared", license=b"old only")
    pulled(store, named(far))
    far.publish("team/other", "v1", model=gguf(3_000, seed=3), template=b"shared")
    pulled(store, named(far, "team/other:v1"))
    far.publish("team/mini", "v1", model=new)
    lines = pulled(store, named(far))
    assert statuses(lines)[-3:] == ["writing manifest", "removing unused layers", "success"]
    assert not store.has_blob(digest_of(old))
    assert not store.has_blob(digest_of(b"old only"))
    assert store.has_blob(digest_of(b"shared"))
    assert store.check() == []


def test_unused_layers_stay_where_that_is_wished(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=gguf(3_000, seed=1))
    pulled(store, named(far))
    far.publish("team/mini", "v1", model=gguf(3_000, seed=2))
    assert "removing unused layers" not in statuses(pulled(store, named(far), prunes=False))
    assert len(store.blobs.digests()) == 2


def test_two_pulls_at_once_bring_a_model_once(far: FarSide, store: Store) -> None:
    far.bytes_per_s = 30_000
    far.publish("team/mini", "v1", model=BIG)

    async def one() -> list[Progress]:
        return [line async for line in pull(store, named(far), options=QUICK)]

    async def main() -> list[list[Progress]]:
        return list(await asyncio.gather(one(), one()))

    both = asyncio.run(main())
    assert [lines[-1].status for lines in both] == ["success", "success"]
    assert far.sent(digest_of(BIG)) == len(BIG)
    for lines in both:
        told = [line.completed for line in lines if line.digest and line.completed]
        assert len(set(told)) > 2, "the one that waits sees the other one's progress"


def test_who_stops_listening_ends_the_work_and_keeps_what_came(far: FarSide, store: Store) -> None:
    far.bytes_per_s = 20_000
    far.publish("team/mini", "v1", model=BIG)

    async def main() -> None:
        lines = pull(store, named(far), options=QUICK)
        async for line in lines:
            if line.completed and line.completed > 10_000:
                break
        await lines.aclose()

    asyncio.run(main())
    assert store.names() == []
    far.settle()
    at_first = far.sent(digest_of(BIG))
    assert 10_000 < at_first < len(BIG)
    far.bytes_per_s = 0
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert far.sent(digest_of(BIG)) - at_first < len(BIG) - 10_000


KILLED = """
import asyncio, sys
from pathlib import Path
from paddock.engine.store.layout import Store
from paddock.engine.store.transfer.pull import pull
from tests.engine.store.transfer.pulling import QUICK

async def main():
    async for line in pull(Store(Path(sys.argv[1])), sys.argv[2], options=QUICK):
        if line.completed:
            print(line.completed, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_pull_is_gone_on_with(far: FarSide, store: Store, how: signal.Signals) -> None:
    far.bytes_per_s = 20_000
    far.publish("team/mini", "v1", model=BIG)
    command = [sys.executable, "-c", KILLED, str(store.root), str(named(far))]
    root = Path(__file__).parents[4]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 20_000:
            pass
        process.send_signal(how)
        process.wait(timeout=20)
    assert store.names() == []
    assert not store.has_blob(digest_of(BIG))
    far.settle()
    before = far.sent(digest_of(BIG))
    far.bytes_per_s = 0
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert far.sent(digest_of(BIG)) - before <= len(BIG) - 20_000
    assert leftovers(store) == []


def test_a_pull_that_waits_for_another_process_takes_over_when_that_is_killed(
    far: FarSide, store: Store
) -> None:
    far.bytes_per_s = 20_000
    far.publish("team/mini", "v1", model=BIG)
    command = [sys.executable, "-c", KILLED, str(store.root), str(named(far))]
    root = Path(__file__).parents[4]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        async def main() -> list[Progress]:
            lines = []
            async for line in pull(store, named(far), options=QUICK):
                lines.append(line)
                if line.completed and line.completed > 20_000 and process.poll() is None:
                    process.kill()
                    process.wait()
                    asked_before.extend(far.seen)
                    far.bytes_per_s = 0
            return lines

        asked_before: list[Seen] = []

        lines = asyncio.run(main())
    assert lines[-1].status == "success"
    assert model_of(store, named(far)) == BIG
    far.settle()
    ours = far.asked(digest_of(BIG))
    sent_to_us = sum(one.n_sent for one in ours if one not in asked_before)
    assert 0 < sent_to_us < len(BIG) - 20_000


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from pathlib import Path
from paddock.engine.store.layout import Store
from tests.engine.store.transfer.pulling import pulled
pulled(Store(Path(sys.argv[1])), sys.argv[2])
"""


def test_a_disk_that_is_full_in_the_middle_is_said_plainly(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    command = [sys.executable, "-c", LIMITED, str(store.root), str(named(far))]
    root = Path(__file__).parents[4]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{RanFull.__module__}.RanFull: no room left in {store.blobs.folder} (")
    assert last.endswith(
        "What arrived is kept: make room and do it again, or set PADDOCK_MODELS to another disk."
    )
    assert store.names() == []
    assert not store.has_blob(digest_of(BIG))
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG


def test_room_is_looked_for_before_anything_is_brought(far: FarSide, store: Store) -> None:
    path = far.publish("team/mini", "v1", model=BIG)
    said = far.files[path].replace(str(len(BIG)).encode(), str(10**16).encode())
    far.files[path] = said
    with pytest.raises(NotEnoughRoom) as caught:
        pulled(store, named(far))
    assert caught.value.needed_bytes == 10**16
    assert "and 10000000.0 GB are to come. Make room" in str(caught.value)
    assert far.sent(digest_of(BIG)) == 0


def test_plain_http_needs_leave(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(NotEncrypted, match=f"^insecure protocol http: http://{far.host} is not"):
        pulled(store, f"http://{far.host}/team/mini:v1", insecure=False)
    assert far.seen == []
    assert pulled(store, f"http://{far.host}/team/mini:v1")[-1].status == "success"


def test_only_trusted_hosts_are_asked(far: FarSide, store: Store) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(HostNotTrusted) as caught:
        pulled(store, named(far), trusted_hosts=("registry.ollama.ai", "*.example.org"))
    assert str(caught.value) == (
        f"{far.host} is not among the trusted hosts (registry.ollama.ai, *.example.org). "
        f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
    )
    assert far.seen == []
    assert pulled(store, named(far), trusted_hosts=("127.0.0.1",))[-1].status == "success"


def test_a_redirect_to_another_host_carries_no_token(far: FarSide, store: Store) -> None:
    far.token = "secret"
    far.publish("team/mini", "v1", model=BIG)
    with far_side() as elsewhere:
        blob = f"/v2/team/mini/blobs/{digest_of(BIG)}"
        elsewhere.files["/cdn/blob"] = far.files.pop(blob)
        far.redirects[blob] = f"{elsewhere.url}/cdn/blob?signature=abc"
        pulled(store, named(far), trusted_hosts=(far.host,))
        assert model_of(store, named(far)) == BIG
        assert elsewhere.seen
        assert all("authorization" not in one.headers for one in elsewhere.seen)
    assert all(one.headers["authorization"] == "Bearer secret" for one in far.asked(digest_of(BIG)))


def test_what_has_no_digest_comes_from_trusted_hosts_alone(far: FarSide, store: Store) -> None:
    path = far.publish("team/mini", "v1", model=BIG)
    with far_side() as elsewhere:
        elsewhere.files[path] = far.files[path]
        far.redirects[path] = elsewhere.url + path
        with pytest.raises(HostNotTrusted):
            pulled(store, named(far), trusted_hosts=(far.host,))
        assert elsewhere.seen == []


def test_redirects_in_a_circle_end(far: FarSide, store: Store) -> None:
    far.redirects["/v2/team/mini/manifests/v1"] = "/v2/team/mini/manifests/v1"
    with pytest.raises(Refused, match="more than 10 redirects"):
        pulled(store, named(far))


@pytest.mark.parametrize("place", ["http://[", "ftp://e.org/x", "http://127.0.0.1:99999/x"])
def test_redirects_to_nowhere_are_said(far: FarSide, store: Store, place: str) -> None:
    far.redirects["/v2/team/mini/manifests/v1"] = place
    with pytest.raises(TransferError):
        pulled(store, named(far))


def test_a_challenge_is_answered_with_a_token(far: FarSide, store: Store) -> None:
    far.token = "first"
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    assert len(far.asked("/token")) == 1


def test_a_token_that_ran_out_is_fetched_again(far: FarSide, store: Store) -> None:
    far.token = "first"
    far.publish("team/mini", "v1", model=BIG, template=b"x")

    async def main() -> list[str]:
        words = []
        async for line in pull(store, named(far), options=QUICK):
            if line.digest:
                far.token = "second"
            words.append(line.status)
        return words

    assert asyncio.run(main())[-1] == "success"
    assert model_of(store, named(far)) == BIG


def test_who_logged_in_is_known_to_the_token_server_alone(far: FarSide, store: Store) -> None:
    far.token, far.password = "t", ("anna", "pass:word")
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(Refused) as caught:
        pulled(store, named(far))
    assert str(caught.value) == (
        f"{far.host} answered 401: incorrect username or password. It wants to know who asks: "
        f"`docker login` or `podman login` to that host, and see that you may read or write "
        f"this model."
    )
    known = {far.host: Credentials("anna", "pass:word")}
    assert pulled(store, named(far), credentials=known)[-1].status == "success"
    assert not any(
        one.headers.get("authorization", "").startswith("Basic") for one in far.asked("v1")
    )


def test_offline_what_is_here_is_there_and_the_rest_does_not_exist(
    far: FarSide, store: Store
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(NotPublished, match=r"^pull model manifest: file does not exist$"):
        pulled(store, named(far), is_offline=True)
    pulled(store, named(far))
    far.seen.clear()
    assert statuses(pulled(store, named(far), is_offline=True)) == ["pulling manifest", "success"]
    assert far.seen == []


def test_a_registry_that_is_not_there_is_named_with_the_way_out(store: Store) -> None:
    with pytest.raises(Unreachable) as caught:
        pulled(store, "127.0.0.1:9/team/mini:v1")
    assert str(caught.value) == (
        "127.0.0.1:9 cannot be reached: nobody listens there. Behind a proxy, set HTTPS_PROXY; "
        "without a network, bring the GGUF file here and `paddock pull ./file.gguf`."
    )


def test_a_registry_that_is_not_there_is_no_trouble_for_a_model_that_is_here(
    far: FarSide, store: Store
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    store.copy(named(far), parse_name("127.0.0.1:9/team/mini:v1"))
    assert statuses(pulled(store, "127.0.0.1:9/team/mini:v1")) == [
        "pulling manifest",
        "127.0.0.1:9 cannot be reached; 127.0.0.1:9/team/mini:v1 is here already",
        "success",
    ]


def test_the_environments_proxy_is_used_and_its_exceptions_too(
    far: FarSide, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    for name in ("ALL_PROXY", "all_proxy", "no_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    with http_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        pulled(store, named(far))
        assert proxy.asked[0] == f"GET {far.url}/v2/team/mini/manifests/v1"
        n_asked = len(proxy.asked)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        pulled(store, named(far))
        assert len(proxy.asked) == n_asked
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises((Unreachable, Interrupted)):  # far speaks no TLS; the way is what counts
            pulled(store, f"https://{far.host}/team/other:v1")
        assert proxy.asked[-1] == f"CONNECT {far.host}"


def test_certificates_are_looked_at_also_through_a_proxy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "all_proxy", "no_proxy", "https_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    file = certificate(tmp_path)
    with far_side(tls=file) as far, http_proxy() as proxy:
        far.publish("team/mini", "v1", model=BIG)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Unreachable, match=r"its certificate is not trusted .* SSL_CERT_FILE"):
            pulled(store, named(far), insecure=False)
        assert far.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert pulled(store, named(far), insecure=False)[-1].status == "success"
        assert model_of(store, named(far)) == BIG
        assert set(proxy.asked) == {f"CONNECT {far.host}"}


def test_a_proxy_that_cannot_be_is_said_before_anything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")
    with pytest.raises(Exception, match="a proxy that the environment names cannot be used"):
        pulled(store, "smollm2:135m", insecure=False)


@pytest.mark.parametrize(
    "layers",
    [
        [{"mediaType": MODEL, "digest": "sha256:../../../etc/passwd", "size": 3}],
        [{"mediaType": MODEL, "digest": "sha256:" + "0" * 64, "size": -1}],
        [{"mediaType": MODEL, "digest": "sha256:" + "0" * 64, "size": "x"}],
        [{"mediaType": MODEL, "digest": None}],
        [{"mediaType": MODEL, "digest": "md5:" + "0" * 32, "size": 3}],
        [],
        [[]],
        {},
        None,
    ],
)
def test_a_hostile_manifest_is_refused_and_leaves_nothing(
    far: FarSide, store: Store, layers: object
) -> None:
    far.files["/v2/team/mini/manifests/v1"] = json.dumps({"layers": layers}).encode()
    with pytest.raises(EngineError):
        pulled(store, named(far))
    assert store.names() == []
    assert leftovers(store) == []
    assert list(store.blobs.digests()) == []


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_said(far: FarSide, store: Store, answer: bytes) -> None:
    far.files["/v2/team/mini/manifests/v1"] = answer
    with pytest.raises(Unusable, match="no manifest of a model"):
        pulled(store, named(far))


def test_an_invalid_name_is_said_before_the_first_line(store: Store) -> None:
    for name in ("../x", "a/../b", "a:b:c", "", "ü", "x" * 100):
        with pytest.raises(InvalidName):
            pulled(store, name)


class Pruned(Store):
    """A store of which another one removes a blob at the last moment, as long as it is unnamed."""

    unlucky: str | None = None

    def put_manifest(self, name: ModelName, manifest: Manifest) -> ModelName:
        if self.unlucky is not None:
            assert self.prune([self.unlucky]) == [self.unlucky]
            self.unlucky = None
        return super().put_manifest(name, manifest)


def test_a_blob_that_is_pruned_while_others_come_is_brought_again(
    far: FarSide, tmp_path: Path
) -> None:
    far.publish("team/mini", "v1", model=BIG, template=b"x")
    store = Pruned(tmp_path / "models")
    store.unlucky = digest_of(b"x")
    assert pulled(store, named(far))[-1].status == "success"
    assert store.check() == []
    assert far.sent(digest_of(b"x")) == 2
