"""Stores on the disk: what is kept is found, once each, whatever else writes; what is refused."""

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.engine.system.file_locks import lock_now
from paddock.steps.base import EmbedModel, ItemName, StepError, VectorRow, VectorStore
from paddock.steps.item_rows import RowSum
from paddock.steps.vectors import store_manifest, table_writer
from paddock.steps.vectors.open_stores import OpenStores
from paddock.steps.vectors.row_changes import row_owner
from paddock.steps.vectors.where_filter import Where
from tests.fakes.pool import vector

T = TypeVar("T")

MODEL = EmbedModel("all-minilm", "d" * 64)


def item(key: str, step: str = "index") -> ItemName:
    return ItemName(step, key, key, f"docs/{key}", f"scope\n{key}")


def rows(*texts: str, **more: Any) -> list[VectorRow]:
    return [VectorRow(index, text, vector(text, 8), **more) for index, text in enumerate(texts)]


def within(folder: Path, work: Callable[[VectorStore, OpenStores], Awaitable[T]]) -> T:
    """Do something with a store as one run does, and leave it in good order."""

    async def main() -> T:
        stores = OpenStores(folder)
        try:
            return await work(await stores.open(folder / "index.lance", None, MODEL), stores)
        finally:
            await stores.close()

    return asyncio.run(main())


def texts_in(folder: Path) -> list[tuple[str, int, str]]:
    """Return (item, index, text) of every row, as the library itself reads them."""
    import lancedb

    table = lancedb.connect(folder / "index.lance").open_table("rows")
    found = table.to_arrow().select(["item", "index", "text"]).to_pylist()
    return sorted((row["item"], row["index"], row["text"]) for row in found)


def told(folder: Path, work: Callable[[VectorStore, OpenStores], Awaitable[Any]]) -> str:
    with pytest.raises(StepError) as caught:
        within(folder, work)
    return str(caught.value).replace(str(folder), "…")


async def refilled(store: VectorStore, *documents: tuple[str, Sequence[str]]) -> list[int]:
    many = (store.replace(item(key), rows(*texts)) for key, texts in documents)
    return list(await asyncio.gather(*many))


def test_what_is_kept_is_found_again_with_its_place(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> None:
        first = VectorRow(0, "the ferry", vector("the ferry", 8), 2, 3, ("Boats", "Times"))
        await store.replace(item("a.md"), [first, *rows("x", "the bell")[1:]])
        ((hit, *others),) = await store.nearest([vector("the ferry", 8)], 5)
        assert (hit.text, hit.source, hit.item, hit.step) == ("the ferry", "a.md", "a.md", "index")
        assert (hit.index, hit.page, hit.page_end, hit.headings) == (0, 2, 3, ("Boats", "Times"))
        assert (hit.score, len(others), store.n_rows, store.dimensions) == (1.0, 1, 2, 8)

    within(tmp_path, work)


def test_only_rows_that_differ_are_written_and_those_that_are_gone_go(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> list[int]:
        return [
            await store.replace(item("a.md"), rows("one", "two", "three")),
            await store.replace(item("a.md"), rows("one", "two", "three")),
            await store.replace(item("a.md"), rows("one", "TWO")),
            await store.replace(item("b.md"), rows("four")),
            *[
                await store.replace(item("b.md"), rows("four", **more))
                for more in ({"page": 1}, {"headings": ("H",)}, {"source": "b.md"}, {"made": "x"})
            ],
            await store.replace(item("a.md"), [VectorRow(5, "five", vector("five", 8))]),
            await store.replace(item("b.md"), []),
        ]

    assert within(tmp_path, work) == [3, 0, 1, *[1] * 6, 0]
    assert texts_in(tmp_path) == [("a.md", 5, "five")]


def test_items_that_come_together_are_written_in_few_commits(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> None:
        await refilled(store, *((f"{n}.md", ["a", "b"]) for n in range(100)))

    within(tmp_path, work)
    assert len(texts_in(tmp_path)) == 200
    assert len(list((tmp_path / "index.lance/rows.lance/_versions").glob("*.manifest"))) < 8


def test_old_versions_and_small_files_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writer, "_COMPACT_AFTER_COMMITS", 16)
    monkeypatch.setattr(table_writer, "_OLD_S", 3600.0)  # however slow the machine is

    async def work(store: VectorStore, stores: OpenStores) -> None:
        for turn in range(40):
            await store.replace(item("a.md"), rows(f"turn {turn}"))

    within(tmp_path, work)
    data = tmp_path / "index.lance/rows.lance/data"
    assert texts_in(tmp_path) == [("a.md", 0, "turn 39")]
    assert len(list(data.iterdir())) == 1
    assert len(list((data.parent / "_versions").glob("*.manifest"))) <= 2


CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["index", "titles"]),
              st.lists(st.sampled_from(["x", "y", "z"]), max_size=4)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_whatever_was_replaced_in_whatever_order_the_last_of_each_stands(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, str, list[str]]]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    wanted: dict[tuple[str, str], list[str]] = {}
    for changes in runs:

        async def work(
            store: VectorStore, stores: OpenStores, changes: Sequence[Any] = tuple(changes)
        ) -> None:
            last = {(key, step): texts for key, step, texts in changes}
            await asyncio.gather(
                *(store.replace(item(k, s), rows(*texts)) for (k, s), texts in last.items())
            )
            wanted.update(last)
            n_rows = sum(map(len, wanted.values()))
            assert store.n_rows == n_rows
            # What is counted while writing is what the table has.
            again = OpenStores(folder)
            if n_rows:
                (folder / "index.lance" / store_manifest.MANIFEST_NAME).unlink(missing_ok=True)
                await again.probe(store.path)
                assert again.content(store.path) == stores.content(store.path)

        within(folder, work)
    found = [(key, i, text) for (key, _), texts in wanted.items() for i, text in enumerate(texts)]
    assert (texts_in(folder) if found else []) == sorted(found)


def test_quotes_and_signs_in_a_question_are_words_like_others(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> list[str]:
        await store.replace(item("a.md"), rows("state of the art", "another"))
        questions = ['"of the art"', "art OR (", "art^2 AND -the", "'; DROP", "*", ""]
        return [" ".join(h.text for h in await store.matching(one, 1)) for one in questions]

    state = "state of the art"
    assert within(tmp_path, work) == [state, state, state, "", "", ""]


def test_both_orders_are_the_same_whatever_the_store_has_been_through(tmp_path: Path) -> None:
    documents = [(f"{n}.md", [f"ferry {n % 3} bell", "bell " * (n % 4 + 1)]) for n in range(12)]

    async def asked(store: VectorStore) -> list[Any]:
        return [
            await store.matching("ferry bell", 6),
            *await store.nearest([vector("ferry", 8)], 6),
        ]

    async def at_once(store: VectorStore, stores: OpenStores) -> list[Any]:
        await refilled(store, *documents)
        return await asked(store)

    async def one_by_one(store: VectorStore, stores: OpenStores) -> list[Any]:
        await refilled(store, ("3.md", ["other"]), ("gone.md", ["ferry ferry"]))
        await asked(store)
        for document in reversed(documents):
            await refilled(store, document)
        await refilled(store, ("gone.md", []))
        return await asked(store)

    assert within(tmp_path / "one", at_once) == within(tmp_path / "two", one_by_one)


def test_a_filter_is_kept_to_by_meaning_and_by_words(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("a.md"), rows("bell one", "bell two", page=1))
        await store.replace(item("it's_b.md"), rows("bell three", headings=("The Scope",)))
        wanted: dict[str, list[Where]] = {
            "a.md": [{"source": "a*"}, {"page": {"from": 1}}, "page == 1", {"page": {"not": None}}],
            "it's_b.md": [{"source": "it's?b.md"}, {"headings": "* Scope"}, "page == none",
                          "'The Scope' in headings", {"item": {"is": "it's_b.md"}}],
            "": [{"source": "a_md"}, "page > 1", {"headings": "Scope"}],
        }  # fmt: skip
        for key, filters in wanted.items():
            for where in filters:
                (near,) = await store.nearest([vector("bell", 8)], 9, where)
                said = await store.matching("bell", 9, where)
                assert {hit.item for hit in near} == {hit.item for hit in said} == {*key.split()}

    within(tmp_path, work)


def test_own_columns_are_stored_filtered_and_returned_also_where_older_rows_have_none(
    tmp_path: Path,
) -> None:
    bills = {"a.md": {"supplier": "it's ACME", "year": 2024, "paid": True}, "b.md": {"year": 2026}}

    async def work(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("old.md"), rows("bell zero"))
        for key, columns in bills.items():
            await store.replace(item(key), rows("bell", columns=columns))
        wanted: dict[str, list[Where]] = {
            "a.md": [{"columns": {"supplier": "it's*"}}, "columns.year < 2025",
                     "columns.paid == true", "'ACME' in columns.supplier",
                     {"columns": {"year": {"from": 2024, "to": 2025}}}],
            "b.md": [{"columns": {"year": 2026, "supplier": None}}, "columns.year in [2026]"],
            "old.md": ["columns.year == none", {"columns": {"year": None}, "source": "old*"}],
        }  # fmt: skip
        for key, filters in wanted.items():
            for where in filters:
                (near,) = await store.nearest([vector("bell", 8)], 9, where)
                assert {hit.item for hit in near} == {key}, where
                assert str(near[0].columns) == str(bills.get(key, {}))
                assert await store.matching("bell", 9, where) != []

    within(tmp_path, work)
    where = {"columns": {"suplier": "x"}}
    why = told(tmp_path, lambda store, _: store.nearest([vector("x", 8)], 1, where))
    assert "no column 'suplier' (did you mean 'supplier'?)" in why
    other = rows("bell", columns={"year": "2024"})
    why = told(tmp_path, lambda store, _: store.replace(item("c.md"), other))
    assert why.startswith(
        "the column 'year' of the store '…/index.lance' holds a number; '2024' is"
    )
    assert len(texts_in(tmp_path)) == 3


async def test_searches_that_wait_together_are_one_pass_and_each_has_its_own_rows_or_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddock.steps.vectors.lance_table import LanceTable  # 0.6 s of each process that collects

    passes: list[int] = []
    look = LanceTable.nearest

    def counted(table: LanceTable, vectors: Any, k: int, where: str) -> Any:
        passes.append(len(vectors))
        return look(table, vectors, k, where)

    store = await OpenStores(tmp_path).open(tmp_path / "index.lance", None, MODEL)
    await store.replace(item("a.md"), rows(*(f"row {n}" for n in range(50))))
    queries = [[vector(f"query {n}", 8)] for n in range(50)]
    alone = [await store.nearest(query, 3) for query in queries]
    monkeypatch.setattr(LanceTable, "nearest", counted)
    searches = [asyncio.create_task(store.nearest(query, 3)) for query in queries]
    wrong = [
        asyncio.create_task(store.nearest(query, 3, {"columns": {"x": 1}})) for query in queries[:2]
    ]
    await asyncio.sleep(0)
    searches[0].cancel()  # it was about to search for all
    found = await asyncio.gather(*searches, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == alone[1:]
    assert len(passes) <= 2
    errors = await asyncio.gather(*wrong, return_exceptions=True)
    assert all(isinstance(error, StepError) for error in errors) and errors[0] is not errors[1]


# --- what is refused


def test_a_store_of_another_model_or_other_dimensions_is_refused(tmp_path: Path) -> None:
    async def fill(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("a.md"), rows("one"))

    within(tmp_path, fill)
    remedy = "use another folder for the store, or delete that one to create it again."
    other, renewed = EmbedModel("bge", "e" * 64), EmbedModel("all-minilm", "e" * 64)
    assert told(tmp_path, lambda s, stores: stores.open(s.path, None, other)) == (
        "the store '…/index.lance' holds vectors of model 'all-minilm', and those of 'bge' cannot "
        f"be compared with them. Use `model: all-minilm`, {remedy}"
    )
    assert told(tmp_path, lambda s, stores: stores.open(s.path, None, renewed)) == (
        "the store '…/index.lance' holds vectors of model 'all-minilm', and those of 'all-minilm' "
        "cannot be compared with them (its file is another one now). Use another folder for the "
        "store, or delete that one to create it again."
    )
    assert told(tmp_path, lambda s, stores: stores.open(s.path, 4, MODEL)) == (
        "the store '…/index.lance' holds vectors of 8 dimensions, not of 4. "
        f"Use `dimensions: 8`, {remedy}"
    )
    short = [VectorRow(0, "x", (1.0, 0.0))]
    assert told(tmp_path, lambda s, _: s.replace(item("b.md"), short)).startswith(
        "the store '…/index.lance' holds vectors of 8 dimensions, not of 2."
    )
    assert texts_in(tmp_path) == [("a.md", 0, "one")]


def test_a_folder_of_other_things_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("x")
    (tmp_path / "file").write_text("x")
    nothing = EmbedModel("m", "d")
    assert told(tmp_path, lambda s, stores: stores.open(tmp_path / "docs", None, nothing)) == (
        "the folder '…/docs' holds other things ('a.md') and is not a store. "
        "Use a folder of its own for the store, such as 'index.lance'."
    )
    assert told(tmp_path, lambda s, stores: stores.open(tmp_path / "file", None, nothing)) == (
        "'…/file' is a file; a store is a folder. Use another path."
    )
    missing = tmp_path / "none"
    assert told(
        tmp_path, lambda s, stores: stores.open(missing, None, nothing, is_new_allowed=False)
    ) == (
        "there is no store '…/none'. "
        "First run the step that fills it (`embed` with `store`), or correct the path."
    )
    assert not missing.exists()


@pytest.mark.parametrize("what", ["data/*", "_versions/*.manifest"])
def test_a_broken_store_is_told_and_costs_no_more_than_its_folder(
    tmp_path: Path, what: str
) -> None:
    async def fill(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("a.md"), rows("one"))

    within(tmp_path, fill)
    for file in (tmp_path / "index.lance/rows.lance").glob(what):
        file.write_bytes(b"garbage")
    sentence = told(tmp_path, lambda store, _: store.nearest([vector("one", 8)], 1))
    assert sentence.startswith("the store '…/index.lance' cannot be read (")
    assert sentence.endswith(
        "). If it is broken, delete that folder and run the pipeline that fills it: the "
        "vectors are cached, so no model is called for them."
    )
    shutil.rmtree(tmp_path / "index.lance")
    within(tmp_path, fill)
    assert texts_in(tmp_path) == [("a.md", 0, "one")]


def test_a_table_that_we_did_not_make_is_left_alone(tmp_path: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path / "index.lance").create_table("rows", [{"x": 1}])

    async def work(store: VectorStore, stores: OpenStores) -> None: ...

    assert told(tmp_path, work) == (
        "'…/index.lance' holds a table that Paddock did not make. Use another folder for the store."
    )


def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.delitem(sys.modules, "paddock.steps.vectors.lance_table", raising=False)
    sentence = told(tmp_path, lambda store, _: store.replace(item("a.md"), rows("one")))
    assert sentence == (
        "vector stores need LanceDB, which is not installed. "
        "Install it: pip install 'paddock-llm[retrieval]'."
    )


# --- what others see


def test_what_a_store_holds_is_known_without_opening_it(tmp_path: Path) -> None:
    async def fill(store: VectorStore, stores: OpenStores) -> tuple[RowSum, str]:
        await store.replace(item("a.md"), rows("one"))
        owner = stores.owner(item("a.md"), store.path)
        return stores.holds(store.path, owner), stores.content(store.path)

    async def look(stores: OpenStores) -> tuple[RowSum, str]:
        path = tmp_path / "index.lance"
        await stores.probe(path)
        return stores.holds(path, stores.owner(item("a.md"), path)), stores.content(path)

    held, content = within(tmp_path, fill)
    assert held.n_rows == 1
    beside = tmp_path / "index.lance" / store_manifest.MANIFEST_NAME
    (tmp_path / "index.lance/rows.lance/data").rename(tmp_path / "away")  # the table is not read
    assert asyncio.run(look(OpenStores(tmp_path))) == (held, content)
    (tmp_path / "away").rename(tmp_path / "index.lance/rows.lance/data")
    for damage in ("", "{}", "[]", json.dumps({"version": 1, "state": 3})):
        beside.write_text(damage)
        assert asyncio.run(look(OpenStores(tmp_path))) == (held, content), "then it is opened"
    shutil.rmtree(tmp_path / "index.lance")
    assert asyncio.run(look(OpenStores(tmp_path))) == (RowSum(), "")


async def test_two_programs_write_one_store_in_turns(tmp_path: Path) -> None:
    """Each with stores of its own, as two processes have; the lock on the disk is the same."""

    several = [OpenStores(tmp_path) for _ in range(3)]
    path = tmp_path / "index.lance"

    async def fill(who: int) -> None:
        store = await several[who].open(path, None, MODEL)
        for n in range(4):
            await store.replace(item(f"{who}-{n}.md"), rows("one", "two"))
        await store.replace(item(f"{who}-0.md"), rows("one"))

    await asyncio.gather(*map(fill, range(3)))
    for stores in several:
        await stores.close()
    found = texts_in(tmp_path)
    assert len(found) == len(set(found)) == 3 * 7


async def test_what_another_program_wrote_is_seen_by_who_looks_and_searches(tmp_path: Path) -> None:
    mine, other = OpenStores(tmp_path), OpenStores(tmp_path)
    path = tmp_path / "index.lance"
    here = await mine.open(path, None, MODEL)
    await here.replace(item("a.md"), rows("one"))
    there = await other.open(path, None, MODEL)
    await there.replace(item("b.md"), rows("two"))
    assert [hit.item for hit in await here.matching("two", 5)] == ["b.md"]
    await mine.probe(path)
    assert mine.content(path) == other.content(path) != ""


def test_a_store_that_another_program_holds_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.steps.vectors.open_stores.LOCK_TIMEOUT_S", 0.2)
    (tmp_path / "index.lance").mkdir()
    with lock_now(tmp_path / "index.lance" / store_manifest.LOCK_NAME):
        sentence = told(tmp_path, lambda store, _: store.replace(item("a.md"), rows("one")))
    assert sentence == (
        "another program has been writing to the store '…/index.lance' for 0 s. "
        "Wait until it is done, then run the same command again."
    )


def test_a_store_that_cannot_be_held_is_told_to_all_who_wait(tmp_path: Path) -> None:
    (tmp_path / "index.lance" / store_manifest.LOCK_NAME).mkdir(parents=True)

    async def work(store: VectorStore, stores: OpenStores) -> list[str]:
        many = (store.replace(item(f"{n}.md"), rows("one")) for n in range(100))
        found = await asyncio.gather(*many, return_exceptions=True)
        return sorted({str(one).replace(str(tmp_path), "…") for one in found})

    assert within(tmp_path, work) == [
        "the store '…/index.lance' cannot be written (Is a directory)."
    ]


def test_who_is_interrupted_leaves_the_others_their_turn(tmp_path: Path) -> None:
    async def work(store: VectorStore, stores: OpenStores) -> None:
        tasks = [asyncio.create_task(store.replace(item(f"{n}.md"), rows("x"))) for n in range(6)]
        await asyncio.sleep(0.02)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert done[1::2] == [1, 1, 1]

    within(tmp_path, work)
    assert {key for key, _, _ in texts_in(tmp_path)} >= {"1.md", "3.md", "5.md"}


def test_rows_of_steps_that_are_no_longer_there_go_with_the_next_settling(tmp_path: Path) -> None:
    async def before(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("a.md", "titles"), rows("title"))
        await store.replace(item("a.md", "index"), rows("one"))
        await stores.keep_only(store.path, item("a.md"))

    async def after(store: VectorStore, stores: OpenStores) -> None:
        await store.replace(item("a.md", "index"), rows("one"))
        await stores.keep_only(store.path, item("a.md"))

    within(tmp_path, before)
    assert len(texts_in(tmp_path)) == 2
    within(tmp_path, after)
    assert texts_in(tmp_path) == [("a.md", 0, "one")]


def test_owners_in_a_store_elsewhere_are_told_apart_by_where_their_pipeline_lies() -> None:
    item = ItemName(owner="scope\na.md")
    here, there = Path("/home/here"), Path("/home/there")
    assert row_owner(item, here / "x.lance", here) == row_owner(item, there / "x.lance", there)
    shared = Path("/srv/x.lance")
    assert row_owner(item, shared, here) != row_owner(item, shared, there)
