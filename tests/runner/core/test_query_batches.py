"""Queries of many items are embedded together, and one that fails fails alone."""

import asyncio
from pathlib import Path

import pytest

from paddock.engine.request import EmbedReply, EmbedRequest, ModelSpec
from paddock.runner.core.calls.query_batches import QueryBatches
from tests.fakes.pool import FakePool
from tests.runner.world import World

VEC = ModelSpec("vec", "embed")


def request(text: str) -> EmbedRequest:
    return EmbedRequest(VEC, (text,))


async def embedded(pool: FakePool, *texts: str) -> list[EmbedReply | BaseException]:
    batches = QueryBatches(pool)
    calls = (batches.embed(request(text)) for text in texts)
    return await asyncio.gather(*calls, return_exceptions=True)


def test_what_waits_is_one_request_and_each_gets_its_own_vector() -> None:
    pool, texts = FakePool(delay_s=0.001), [f"Query {n}" for n in range(100)]
    replies = asyncio.run(embedded(pool, *texts))
    alone = [asyncio.run(FakePool().embed(request(text))).vectors for text in texts]
    assert [reply.vectors for reply in replies if isinstance(reply, EmbedReply)] == alone
    assert len(pool.embeds) <= 2
    tokens = sum(reply.usage.prompt_tokens for reply in replies if isinstance(reply, EmbedReply))
    assert tokens == 200


async def test_who_is_cancelled_leaves_the_others_their_answers() -> None:
    batches = QueryBatches(FakePool(delay_s=0.05))
    tasks = [asyncio.create_task(batches.embed(request(text))) for text in "abc"]
    await asyncio.sleep(0.01)
    tasks[0].cancel()  # it was about to send for all
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert all(isinstance(reply, EmbedReply) for reply in others)


STORE = """\
steps:
  - {id: filled, uses: embed, with: {texts: [ferry, pier, boat, quay], store: store}}
  - {id: table, uses: files.rows, with: {path: rows.csv}}
  - id: each
    for_each: row in steps.table.rows
    needs: [filled]
    do:
      - {id: found, uses: search, with: {store: store, query: "{{ row.text }}", k: 1}}
"""


@pytest.mark.parametrize("query", ["{{ row.text }}", "{{ steps.asked.text }}"])
def test_many_searches_are_a_few_embedding_calls(tmp_path: Path, query: str) -> None:
    n_rows = 120
    prompt_step = '      - {id: asked, uses: prompt, with: {template: "{{ row.text }}"}}\n'
    world = World(
        tmp_path,
        STORE.replace("{{ row.text }}", query).replace("    do:\n", f"    do:\n{prompt_step}"),
    )
    world.write("rows.csv", "text\n" + "".join(f"row {n}\n" for n in range(n_rows)))
    # A busy machine needs 20 ms for some steps: queries gather while a call takes longer than that.
    report = world.run(pool=FakePool(delay_s=0.2))
    assert report.status == "completed"
    assert sum(len(request.texts) for request in world.pool.embeds) == n_rows + 4
    assert len(world.pool.embeds) < (6 if "row" in query else n_rows / 2)
    # Where a step makes the query, how many gather depends on the machine.
    assert not list(tmp_path.rglob("objects/*"))  # a file for each vector was synced


def test_the_queries_of_items_that_were_done_are_not_asked_again(tmp_path: Path) -> None:
    world = World(tmp_path, STORE, {"rows.csv": "text\none\ntwo\n"})
    world.run()
    world.write("rows.csv", "text\none\ntwo\nthree\nfour\n")
    world.edit("k: 1", "k: 2")
    pool = FakePool()
    assert world.run(pool=pool).status == "completed"
    assert sorted(text for request in pool.embeds for text in request.texts) == ["four", "three"]
