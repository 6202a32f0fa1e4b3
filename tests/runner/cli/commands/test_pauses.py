"""`paddock pause` and `resume`: written into the queue's file, with and without a `paddock up`."""

from pathlib import Path

import pytest

from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.workers.order import Order
from tests.runner.cli.commands.shell import invoke, paddock

TEXT = """\
on:
  schedule: [{cron: "0 6 * * *"}]
  webhook: [{path: /x, secret: "{{ secrets.hook }}"}]
secrets: {hook: {env: PADDOCK_TEST_NO_SUCH}}
steps:
  - {id: docs, uses: files.scan, with: {root: .}}
  - {id: ask, uses: run, with: {command: [date]}}
"""
SCHEDULE, HOOK = "schedule 0 6 * * *", "webhook /x"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADDOCK_UP_HOST", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news.yaml").write_text(TEXT)
    return tmp_path


async def queue_of(folder: Path) -> OrderQueue:
    queue = OrderQueue(folder / "home")
    await queue.open()
    await queue.serve([str(folder / "news.yaml")])
    return queue


async def test_a_pause_of_another_process_holds_over_restarts_until_it_is_resumed(
    folder: Path,
) -> None:
    queue = await queue_of(folder)
    file = str(folder / "news.yaml")
    made = [(await queue.put(Order("", str(n), file, SCHEDULE))).order for n in range(3)]
    queue.note(made[0].id, state="running")
    await queue.flush()
    ended = paddock("pause", "news.yaml", cwd=folder)
    assert (ended.status, ended.out.splitlines()) == (0, [
        "news.yaml is paused: 2 orders waiting, and what comes waits, too.",
        "Its running run goes on.",
        "No `paddock up` at http://127.0.0.1:1 serves it: another one or a later one heeds "
        "the pause, too.",
    ]), ended.err  # fmt: skip
    await queue.read_pauses()
    assert queue.is_paused(made[1])
    await queue.close()
    again = await queue_of(folder)
    assert again.is_paused(made[1])
    assert (
        paddock("resume", "news.yaml", cwd=folder).out
        == "news.yaml is resumed: 2 orders waiting.\n"
    )
    await again.read_pauses()
    assert not again.is_paused(made[1])
    await again.close()


async def test_a_trigger_is_paused_alone_and_what_stays_paused_is_named(folder: Path) -> None:
    def first(*words: str) -> list[str]:
        shown = invoke(*words)
        assert shown.exit_code == 0, shown.output
        return shown.stdout.splitlines()

    one = ("news", "--trigger", HOOK)
    assert first("pause", *one)[0].startswith(f"`{HOOK}` of news is paused: 0 orders waiting")
    assert first("pause", *one)[0].startswith(f"`{HOOK}` of news was already paused")
    queue = await queue_of(folder)
    (order,) = [(await queue.put(Order("", "1", str(folder / "news.yaml"), HOOK))).order]
    other = (await queue.put(Order("", "2", str(folder / "news.yaml"), SCHEDULE))).order
    assert (queue.is_paused(order), queue.is_paused(other)) == (True, False)
    await queue.close()
    first("pause", "news.yaml")
    assert first("resume", *one) == [
        f"`{HOOK}` of news is resumed: 1 order waiting.", "Still paused: news.",
    ]  # fmt: skip
    first("pause", *one)
    assert first("resume", ".") == [
        ". is resumed: 2 orders waiting.", f"Still paused: `{HOOK}`.",
    ]  # fmt: skip
    assert first("resume", ".")[0] == ". was not paused: 2 orders waiting."


def test_a_pause_of_a_file_or_a_trigger_that_is_gone_can_be_taken_back(folder: Path) -> None:
    for words in (("news.yaml",), ("news.yaml", "--trigger", SCHEDULE)):
        assert invoke("pause", *words).exit_code == 0
    text = TEXT.replace("0 6", "0 7")
    (folder / "news.yaml").write_text(text)
    assert invoke("resume", "news", "--trigger", SCHEDULE).exit_code == 0
    (folder / "news.yaml").unlink()
    assert "is resumed" in invoke("resume", "news.yaml").stdout
    assert invoke("resume", "news.yaml").exit_code == 2


@pytest.mark.parametrize(
    ("text", "words", "why"),
    [
        (TEXT, ("none.yaml",), "There is no file 'none.yaml'."),
        (TEXT, ("",), "The name of the pipeline is empty."),
        (TEXT, ("news.yaml", "--trigger", ""), "The key of the trigger is empty."),
        ("just: words\n", ("news.yaml",), "unknown key 'just'"),
        ("steps: [", ("news.yaml",), "news.yaml:1"),
        ("steps: [{id: docs, uses: files.scan, with: {root: .}}]\n", ("news.yaml",),
         "news.yaml has no triggers: nothing starts it by itself."),
        (TEXT, ("news.yaml", "--trigger", "webhook"),
         f"news.yaml has no trigger 'webhook'.\n  Known: '{SCHEDULE}', '{HOOK}'."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_cannot_be_paused_is_said_and_nothing_is(
    command: str, text: str, words: tuple[str, ...], why: str, folder: Path
) -> None:
    (folder / "news.yaml").write_text(text)
    shown = invoke(command, *words)
    assert shown.exit_code != 0
    assert why in shown.output
