"""Whom a pull asks and whom it believes: hosts, redirects, tokens, proxies, hostile manifests."""

import asyncio
import json
import socket
from pathlib import Path

import httpx
import pytest

from paddock.engine.errors import EngineError
from paddock.engine.models.manifests import MODEL_TYPE
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.pull import pull
from paddock.engine.models.transfer import RegistryCredentials
from paddock.engine.models.transfer_client import TransferClient
from paddock.engine.models.transfer_errors import (
    HostNotTrusted,
    HostUnreachable,
    NotEncrypted,
    NotPublished,
    NoUsableModel,
    RedirectsToPrivateHost,
    TransferError,
    TransferRefused,
)
from paddock.engine.system.records import replace
from tests.engine.models.pulling import BIG, QUICK, leftovers, model_of, named, pulled, statuses
from tests.fakes.far_side import FarSide, certificate, digest_of, far_side
from tests.fakes.wires import http_proxy, raw_answers


def test_plain_http_needs_leave(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(NotEncrypted, match=f"^insecure protocol http: http://{far.host} is not"):
        pulled(store, f"http://{far.host}/team/mini:v1", insecure=False)
    assert far.seen == []
    assert pulled(store, f"http://{far.host}/team/mini:v1")[-1].status == "success"


def test_only_trusted_hosts_are_asked(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(HostNotTrusted) as caught:
        pulled(store, named(far), trusted_hosts=("registry.ollama.ai", "*.example.org"))
    assert str(caught.value) == (
        f"{far.host} is not among the trusted hosts (registry.ollama.ai, *.example.org). "
        f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
    )
    assert far.seen == []
    assert pulled(store, named(far), trusted_hosts=("127.0.0.1",))[-1].status == "success"


def test_a_redirect_to_another_host_carries_no_token(far: FarSide, store: ModelStore) -> None:
    far.token = "secret"
    far.publish("team/mini", "v1", model=BIG)
    with far_side() as elsewhere:
        blob = f"/v2/team/mini/blobs/{digest_of(BIG)}"
        elsewhere.files["/cdn/blob"] = far.files.pop(blob)
        far.redirects[blob] = f"{elsewhere.url}/cdn/blob?signature=abc"
        pulled(store, named(far), trusted_hosts=(far.host,))
        assert model_of(store, named(far)) == BIG
        assert elsewhere.seen
        assert all("authorization" not in request.headers for request in elsewhere.seen)
    assert all(
        request.headers["authorization"] == "Bearer secret" for request in far.asked(digest_of(BIG))
    )


def test_redirects_in_a_circle_end(far: FarSide, store: ModelStore) -> None:
    far.redirects["/v2/team/mini/manifests/v1"] = "/v2/team/mini/manifests/v1"
    with pytest.raises(TransferRefused, match="more than 10 redirects"):
        pulled(store, named(far))


PUBLIC = "https://93.184.216.34"


def hop(before: str, target: str, **changes: object) -> None:
    options = replace(QUICK, **changes)
    asyncio.run(TransferClient(options)._check_hop(httpx.URL(before), httpx.URL(target)))


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1:5432/", "https://localhost/", "https://169.254.169.254/latest/",
        "https://10.0.0.7/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://2130706433/",
        "https://0.0.0.0/",
    ],
)  # fmt: skip
def test_no_redirect_leads_from_a_public_server_inside(target: str) -> None:
    with pytest.raises(RedirectsToPrivateHost):
        hop(f"{PUBLIC}/v2/", target)


def test_a_name_that_leads_inside_is_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(RedirectsToPrivateHost) as caught:
        hop(f"{PUBLIC}/v2/", "https://cdn.evil.example/blob")
    assert str(caught.value) == (
        "93.184.216.34 redirects to cdn.evil.example, which is this machine or in a private "
        "network. Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
    )
    hop(f"{PUBLIC}/v2/", "https://cdn.evil.example/blob", trusted_hosts=("*.evil.example",))


def test_no_redirect_leaves_https_even_where_http_is_allowed() -> None:
    with pytest.raises(NotEncrypted):
        hop(f"{PUBLIC}/v2/", "http://93.184.216.34/v2/", insecure=True)


def test_a_token_server_that_leads_elsewhere_passes_no_password_on(
    far: FarSide, store: ModelStore
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    far.token = "secret"
    with far_side() as elsewhere:
        elsewhere.token = "secret"
        query = "service=far&scope=repository:x:pull"
        far.redirects["/token"] = f"{elsewhere.url}/token?{query}"
        pulled(store, named(far), credentials={far.host: RegistryCredentials("me", "hush")})
        assert far.asked("/token")[0].headers["authorization"].startswith("Basic ")
        assert all("authorization" not in request.headers for request in elsewhere.seen)
        assert elsewhere.seen


def test_a_token_that_ran_out_is_fetched_again(far: FarSide, store: ModelStore) -> None:
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


def test_who_logged_in_is_known_to_the_token_server_alone(far: FarSide, store: ModelStore) -> None:
    far.token, far.password = "t", ("anna", "pass:word")
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(TransferRefused) as caught:
        pulled(store, named(far))
    assert str(caught.value) == (
        f"{far.host} answered 401: incorrect username or password. Log in to that host "
        f"with `docker login` or `podman login`, and check that you may read or write this model."
    )
    known = {far.host: RegistryCredentials("anna", "pass:word")}
    assert pulled(store, named(far), credentials=known)[-1].status == "success"
    assert not any(
        request.headers.get("authorization", "").startswith("Basic") for request in far.asked("v1")
    )


def test_offline_what_is_here_is_there_and_the_rest_does_not_exist(
    far: FarSide, store: ModelStore
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    with pytest.raises(NotPublished, match=r"^pull model manifest: file does not exist$"):
        pulled(store, named(far), is_offline=True)
    pulled(store, named(far))
    far.seen.clear()
    assert statuses(pulled(store, named(far), is_offline=True)) == ["pulling manifest", "success"]
    assert far.seen == []


def test_a_registry_that_is_not_there_is_named_with_the_way_out(store: ModelStore) -> None:
    with pytest.raises(HostUnreachable) as caught:
        pulled(store, "127.0.0.1:9/team/mini:v1")
    assert str(caught.value) == (
        "127.0.0.1:9 cannot be reached: nothing listens there. Behind a proxy, set HTTPS_PROXY; "
        "without a network, copy the GGUF file here and run `paddock pull ./file.gguf`."
    )


def test_a_registry_that_is_not_there_is_no_trouble_for_a_model_that_is_here(
    far: FarSide, store: ModelStore
) -> None:
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    store.copy(named(far), parse_name("127.0.0.1:9/team/mini:v1"))
    assert statuses(pulled(store, "127.0.0.1:9/team/mini:v1")) == [
        "pulling manifest",
        "127.0.0.1:9 cannot be reached; 127.0.0.1:9/team/mini:v1 is here already",
        "success",
    ]


def test_certificates_are_looked_at_also_through_a_proxy(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "all_proxy", "no_proxy", "https_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    file = certificate(tmp_path)
    with far_side(tls=file) as far, http_proxy() as proxy:
        far.publish("team/mini", "v1", model=BIG)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(
            HostUnreachable, match=r"its certificate is not trusted .* SSL_CERT_FILE"
        ):
            pulled(store, named(far), insecure=False)
        assert far.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert pulled(store, named(far), insecure=False)[-1].status == "success"
        assert model_of(store, named(far)) == BIG
        assert set(proxy.asked) == {f"CONNECT {far.host}"}


def test_a_proxy_that_cannot_be_is_said_before_anything(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")
    with pytest.raises(Exception, match="a proxy in the environment cannot be used"):
        pulled(store, "smollm2:135m", insecure=False)


@pytest.mark.parametrize(
    "layers",
    [
        [{"mediaType": MODEL_TYPE, "digest": "sha256:../../../etc/passwd", "size": 3}],
        [{"mediaType": MODEL_TYPE, "digest": "sha256:" + "0" * 64, "size": -1}],
        [{"mediaType": MODEL_TYPE, "digest": "sha256:" + "0" * 64, "size": "x"}],
        [{"mediaType": MODEL_TYPE, "digest": None}],
        [{"mediaType": MODEL_TYPE, "digest": "md5:" + "0" * 32, "size": 3}],
        [],
        [[]],
        {},
        None,
    ],
)
def test_a_hostile_manifest_is_refused_and_leaves_nothing(
    far: FarSide, store: ModelStore, layers: object
) -> None:
    far.files["/v2/team/mini/manifests/v1"] = json.dumps({"layers": layers}).encode()
    with pytest.raises(EngineError):
        pulled(store, named(far))
    assert store.names() == []
    assert leftovers(store) == []
    assert list(store.blobs.digests()) == []


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_said(far: FarSide, store: ModelStore, answer: bytes) -> None:
    far.files["/v2/team/mini/manifests/v1"] = answer
    with pytest.raises(NoUsableModel, match="no manifest of a model"):
        pulled(store, named(far))


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "403 Forbidden"])
def test_an_answer_without_an_end_is_left_before_it_fills_the_memory(
    store: ModelStore, status: str
) -> None:
    head = f"HTTP/1.1 {status}\r\nWWW-Authenticate: Basic\r\n\r\n".encode()
    with raw_answers(head, endless=b" " * 65536) as url:
        name = parse_name(f"{url.partition('://')[2]}/team/mini:v1")
        with pytest.raises(TransferError) as caught:
            pulled(store, name)
    address = f"{url}/v2/team/mini/manifests/v1"
    assert str(caught.value) == f"{address} answers with more than 16,777,216 bytes"
