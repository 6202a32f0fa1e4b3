"""What other machines may ask of a pool: models by their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from paddock.engine.api.pool_server import NamesOnlyPool
from paddock.engine.backends.model_servers import detect_server
from paddock.engine.errors import BadRequest, EngineError, InvalidName, ModelBroken
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.hosts import ServerAddress
from tests.fakes.pool import FakePool
from tests.in_loop import in_loop
from tests.live import live_service

PATHS = ["/etc/secret.gguf", "../x.gguf", "~/m.gguf", "C:\\m.gguf"]


@pytest.mark.parametrize("ref", PATHS)
def test_the_path_of_a_file_is_refused_whatever_is_asked(ref: str) -> None:
    inner = FakePool()
    pool, spec = NamesOnlyPool(inner), ModelSpec(ref)  # type: ignore[arg-type]

    @in_loop
    async def refused() -> None:
        with pytest.raises(InvalidName):
            await pool.facts(spec)
        with pytest.raises(InvalidName):
            await pool.count_chat(spec, [Message("user", "a")])
        with pytest.raises(InvalidName):
            await pool.count_texts(spec, ["a"])
        with pytest.raises(InvalidName):
            pool.chat(ChatRequest(spec, (Message("user", "a"),)))
        with pytest.raises(InvalidName):
            await pool.embed(EmbedRequest(spec, ("a",)))

    refused()
    assert (inner.chats, inner.embeds, inner.counted) == ([], [], [])


@in_loop
async def test_adapters_are_refused_and_no_path_is_told() -> None:
    pool = NamesOnlyPool(FakePool())  # type: ignore[arg-type]
    assert (await pool.facts(ModelSpec("smollm2:135m"))).path == "smollm2:135m"
    told = "adapters can only be laid over a model on the machine that has them"
    with pytest.raises(BadRequest, match=told):
        await pool.facts(replace(ModelSpec("m"), adapters=("/x.gguf",)))


def test_a_service_with_keys_shows_its_pool_to_those_who_have_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-of-this-service me\n")
    settings = ServiceSettings(api_keys_file=keys)
    with live_service(tmp_path, service=settings) as live:
        refused = httpx.post(f"{live.url}/paddock/pool/stats", trust_env=False)
        assert refused.status_code == 401

        async def asked(key: str) -> str:
            try:
                server = await detect_server(ServerAddress(live.url, key), print)
            except EngineError as error:
                assert isinstance(error, ModelBroken)
                return str(error)
            try:
                return (await server.facts(ModelSpec("smollm2:135m"))).digest
            finally:
                await server.aclose()

        results: list[str] = []

        @in_loop
        async def both() -> None:
            results.extend([await asked("sk-of-this-service"), await asked("sk-of-another")])

        both()
    assert len(results[0]) == 64
    assert results[1] == (
        f"{live.url}: the server refuses the key that it is shown (401). "
        "Correct the model's `pool.key`, or PADDOCK_POOL_KEY"
    )
