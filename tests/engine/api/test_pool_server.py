"""What other machines may ask of a pool: models by their names."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from paddock.engine.api.pool_server import pool_routes
from paddock.engine.backends.model_servers import detect_server
from paddock.engine.backends.rpc import PREFIX, CountRequest, WireLine, read_line
from paddock.engine.errors import BadRequest, InvalidName, ModelBroken, read_error
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.records import replace
from paddock.engine.system.server_address import ServerAddress
from paddock.engine.wire import write_json
from tests.fakes.pool import FakePool
from tests.live import live_service
from tests.waiting import PATIENCE_S

PATHS = ["/etc/secret.gguf", "../x.gguf", "~/m.gguf", "C:\\m.gguf"]


async def last_line(
    pool: FakePool, verb: str, value: ChatRequest | EmbedRequest | CountRequest | ModelSpec
) -> WireLine:
    """Return the last line of the answer of a pool that takes names only."""
    app = Starlette(routes=pool_routes(pool, names_only=True))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.post(f"{PREFIX}/{verb}", content=write_json(value))
    return read_line(answer.content.splitlines()[-1])


@pytest.mark.parametrize("ref", PATHS)
async def test_the_path_of_a_file_is_refused_whatever_is_asked(ref: str) -> None:
    pool, spec = FakePool(), ModelSpec(ref)
    messages = (Message("user", "a"),)

    for verb, value in (
        ("facts", spec),
        ("count", CountRequest(spec, messages=messages)),
        ("count", CountRequest(spec, texts=("a",))),
        ("chat", ChatRequest(spec, messages)),
        ("embed", EmbedRequest(spec, ("a",))),
    ):
        line = await last_line(pool, verb, value)
        assert line.error is not None
        assert isinstance(read_error(line.error), InvalidName)
    assert (pool.chats, pool.embeds, pool.counted) == ([], [], [])


async def test_adapters_are_refused_and_no_path_is_told() -> None:
    line = await last_line(FakePool(), "facts", ModelSpec("smollm2:135m"))
    assert line.facts is not None and line.facts.path == "smollm2:135m"
    message = "adapters can only be laid over a model on the machine that has them"
    line = await last_line(FakePool(), "facts", replace(ModelSpec("m"), adapters=("/x.gguf",)))
    assert line.error is not None
    with pytest.raises(BadRequest, match=message):
        raise read_error(line.error)


def test_a_service_with_keys_shows_its_pool_to_those_who_have_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-of-this-service me\n")
    settings = ServiceSettings(api_keys_file=keys)
    with live_service(tmp_path, service=settings) as live:
        refused = httpx.post(f"{live.url}{PREFIX}/stats", trust_env=False, timeout=PATIENCE_S)
        assert refused.status_code == 401

        async def digest(key: str) -> str:
            server = await detect_server(ServerAddress(live.url, key), print)
            try:
                return (await server.facts(ModelSpec("smollm2:135m"))).digest
            finally:
                await server.aclose()

        assert len(asyncio.run(digest("sk-of-this-service"))) == 64
        with pytest.raises(ModelBroken) as caught:
            asyncio.run(digest("sk-of-another"))
    assert str(caught.value) == (
        f"{live.url}: the server refuses the key that it is shown (401). "
        "Correct the model's `pool.key`, or PADDOCK_POOL_KEY"
    )
