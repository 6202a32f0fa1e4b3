"""One test: on a copy, recorded and replayed, repeated, and what it says where it fails."""

import itertools
import os
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.testing import replay
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import TEST, Bench, Nobody


def test_a_recorded_test_needs_no_pool_at_all(bench: Bench) -> None:
    recorded = bench.record()
    assert recorded.source == "record"
    assert recorded.notes == (f"recorded {_shown(bench)}",)
    assert len(bench.pool.chats) == 2

    for mode in ("replay", "auto"):
        case = bench.case(mode, pool=Nobody())
        assert (case.word, case.source, case.problems) == ("passed", "replay", ())


def test_it_runs_on_a_copy_and_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.edit('out: "{{ tmp }}/out"', "tone: kind")
    bench.edit('exists: "{{ tmp }}/out/0.txt"', "exists: out/0.txt")
    before = sorted(tmp_path.rglob("*"))
    bench.record()
    new = sorted(set(tmp_path.rglob("*")) - set(before))
    assert [str(path.relative_to(tmp_path)) for path in new] == [
        "tests", "tests/cassettes", "tests/cassettes/pipeline.two-documents.jsonl",
    ]  # fmt: skip


def test_a_cassette_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    (first := tmp_path / "one").mkdir()
    (other := tmp_path / "other").mkdir()
    texts = []
    for folder in (first, other):
        bench = Bench(folder)
        bench.edit("Sum up: {{ steps.text.text }}", "Sum up {{ doc.path }} for {{ inputs.out }}")
        assert bench.case("record", pool=FakePool(answer=lambda request: "A ferry.")).passed
        texts.append(bench.cassette.read_text("utf-8"))
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert "Sum up «folder»/inbox/0.txt for «tmp»/out" in texts[0]
    (other / "inbox" / "0.txt").rename(first / "inbox" / "0.txt")
    assert bench.case("replay", pool=Nobody()).word == "failed", "a file is gone"


def test_a_changed_prompt_fails_with_the_difference(bench: Bench) -> None:
    bench.record()
    bench.edit("Sum up:", "Please sum up:")
    case = bench.case("replay", pool=Nobody())
    assert case.word == "failed"
    assert [problem.kind for problem in case.problems] == ["unseen", "unseen"]
    assert case.problems[0].message == "this prompt was not recorded."
    details = sorted(problem.detail for problem in case.problems)
    assert details[0] == (
        "--- recorded\n+++ asked\n@@ -2,3 +2,3 @@\n [user]\n"
        "-Sum up: Document 0, about the ferry.\n+Please sum up: Document 0, about the ferry.\n"
        " (plain)"
    )
    assert case.problems[1].message == (
        "this prompt was not recorded. "
        "If the change is meant, record the test again with `--record`."
    )


def test_recording_again_asks_only_what_is_new_and_drops_what_is_stale(bench: Bench) -> None:
    bench.record()
    before = bench.cassette.read_text("utf-8")
    bench.record()
    assert bench.pool.chats == []
    assert bench.cassette.read_text("utf-8") == before

    bench.write("inbox/0.txt", "Another one, about the harbour.")
    case = bench.record()
    assert len(bench.pool.chats) == 1
    assert case.notes == (f"recorded {_shown(bench)}, 1 recorded reply removed",)
    assert "Document 0" not in bench.cassette.read_text("utf-8")


def test_without_a_cassette_a_replay_says_how_to_record(bench: Bench) -> None:
    case = bench.case("replay", pool=Nobody())
    assert case.word == "error"
    assert [problem.message for problem in case.problems] == [
        f"this test has no recorded replies: there is no {_shown(bench)}. "
        f"Record it with `paddock test {bench.file} --record`."
    ]


def test_secrets_are_in_no_cassette_and_a_replay_reads_none(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.edit("name: sums\n", "name: sums\nsecrets: {key: {env: SUMS_KEY}, pin: {file: .pin}}\n")
    bench.edit("({{ inputs.tone }})", "({{ secrets.key }}, {{ secrets.pin }})")
    monkeypatch.setenv("SUMS_KEY", "tr0ub4dor")
    pin = tmp_path / ".pin"
    pin.write_text("h0rse-staple\n")
    bench.edit("file: .pin", f"file: {pin}")
    (problem,) = bench.case("record").problems
    assert "which needs 'secrets'" in problem.message
    case = bench.case("record", flags={"allow": "secrets"})
    monkeypatch.delenv("SUMS_KEY")
    pin.unlink()
    assert case.passed, case.problems
    assert "(tr0ub4dor, h0rse-staple)" in str(bench.pool.chats)
    text = bench.cassette.read_text("utf-8")
    assert "tr0ub4dor" not in text and "h0rse" not in text

    for mode in ("replay", "auto"):
        assert bench.case(mode, pool=Nobody()).problems == (), "neither variable nor file is there"


def test_a_test_whose_inputs_lead_elsewhere_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = Bench(tmp_path / "a")
    bench.edit('out: "{{ tmp }}/out"', 'folder: "../b"')
    (problem,) = bench.case("record").problems
    assert problem.message == (
        "input 'folder' leads outside of the pipeline's folder. A test runs on a copy of "
        "that folder: put its files there."
    )


def test_documents_that_fail_fail_the_test_unless_it_says_so(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "inbox" / "0.txt").write_bytes(b"\x00\x01\x02" * 99)
    case = bench.case("record")
    assert [problem.kind for problem in case.problems][:1] == ["status"]
    assert case.problems[0].message == "the run ended as 'quarantined', not as 'completed'."
    assert case.problems[0].detail.startswith("each 0.txt: ")
    bench.edit('{exists: "{{ tmp }}/out/0.txt"}', "{status: quarantined}")
    bench.edit("returns.n == 2", "returns.n == 1")
    assert bench.record()


def test_a_pass_rate_counts_turns_and_each_turn_samples_with_another_seed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, n_documents=1)
    bench.edit("returns.n == 2", "\"'yes' in returns.first\"")
    bench.edit('tone }})"', 'tone }})", params: {temperature: 0.7}')
    bench.edit("    replay: tests/cassettes\n", "    repeat: 4\n    pass_rate: 0.75\n")
    numbers = itertools.count()
    seeds = []

    def answer(request: ChatRequest) -> str:
        seeds.append(request.params.get("seed"))
        return "no" if next(numbers) == 1 else "yes"

    case = bench.case(pool=FakePool(answer=answer))
    assert (case.word, case.turns) == ("passed", (True, False, True, True))
    assert seeds == [None, 1, 2, 3]
    assert case.notes[0] == "3 of 4 turns passed, 75% must pass"
    bench.edit("0.75", "0.8")
    numbers = itertools.count()
    assert bench.case(pool=FakePool(answer=answer)).word == "failed"


def _shown(bench: Bench) -> str:
    return os.path.relpath(bench.cassette)


def test_what_was_not_recorded_fails_whatever_share_must_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path, n_documents=1)
    bench.edit("returns.n == 2", "returns.n == 1")
    bench.edit('tone }})"', 'tone }})", params: {temperature: 0.7}')
    bench.edit("    expect:", "    repeat: 2\n    pass_rate: 0.5\n    expect:")
    bench.record()
    lines = bench.cassette.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"seed": 1' not in line]
    assert len(kept) == len(lines) - 1
    bench.cassette.write_text("".join(kept), "utf-8")
    case = bench.case("replay", pool=Nobody())
    assert (case.word, case.turns) == ("failed", (True, False))


def test_each_turn_has_its_own_results_of_tools(tmp_path: Path) -> None:
    pipeline = """\
steps:
  - id: at
    uses: run
    with: {command: [python3, -c, "import os; print(os.urandom(8).hex())"]}
returns: steps.at.stdout
"""
    bench = Bench(tmp_path, pipeline, n_documents=0)
    bench.edit(
        TEST,
        TEST.partition("    inputs")[0]
        + "    repeat: 2\n    replay: tests/cassettes\n    expect: [{check: returns}]\n",
    )
    allowed = {"allow": "run"}
    assert bench.case("record", flags=allowed).passed
    results = [line["given"]["results"][0]["stdout"] for line in bench.lines()[1:]]
    assert len(set(results)) == 2
    assert bench.case("replay", pool=Nobody()).turns == (True, True)


def test_what_is_recorded_is_saved_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "SAVE_EVERY_S", 0.0)
    bench.edit("- id: each\n", "- id: each\n    max_parallel: 1\n")
    found = []

    def answer(request: ChatRequest) -> str:
        found.append(bench.cassette.exists())
        return "A ferry."

    assert bench.case("record", pool=FakePool(answer=answer)).passed
    assert found[1], "the first reply is safe when the second is asked for"
