"""How items were last done is known from the spec that each was made by."""

import asyncio
from pathlib import Path

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.core.traces.past_items import PastItems
from tests.runner.world import World


def test_another_key_is_told_from_the_same(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=1)
    world.run()
    with world.ledger() as ledger:
        scope = ledger.rows("select scope from items where key = '0.txt'")[0][0]
        past = PastItems(ledger, scope, each(world))
        asyncio.run(past.read())
        assert not past.changes("0.txt").has_other_key
        world.edit("    do:\n", "    key: doc.stem\n    do:\n")
        past = PastItems(ledger, scope, each(world))
        asyncio.run(past.read())
        assert past.changes("0.txt").has_other_key
        assert not past.changes("never.txt").has_other_key


def each(world: World) -> BoundBlock:
    bound = bind(read_plan(world.file), {}, cwd=world.folder, default_models={})
    return next(node for node in bound.nodes if isinstance(node, BoundBlock))
