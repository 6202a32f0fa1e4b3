"""The report counts answers that ended at their limit, once for each step."""

from pathlib import Path

from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool
from tests.runner.world import Notes, World, each_document

PIPELINE = each_document("""\
      - id: sum
        uses: chat
        with: {prompt: "Sum up: {{ steps.text.text }}", params: {max_tokens: 10}}
""")
WHOLE = " ".join(f"w{n}" for n in range(25))


def answering() -> FakePool:
    def going_on(request: ChatRequest) -> str:
        last = request.messages[-1]
        return WHOLE.removeprefix(last.content) if last.role == "assistant" else WHOLE

    return FakePool(answer=going_on)


def test_many_cut_answers_of_a_step_are_one_note_and_cached_ones_are_counted_again(
    tmp_path: Path,
) -> None:
    here = World(tmp_path, PIPELINE, n_documents=30)
    observer = Notes()
    first = here.run(pool=answering(), observer=observer)
    [note] = first.notes
    assert note.startswith("'sum': 30 answers ended at `max_tokens` (10) (")
    assert note.endswith(" and 27 more).")
    assert observer.texts == [note]
    again = here.run(pool=answering())
    assert (again.calls, again.notes) == (0, ())
    here.edit("    do:\n", "    do:\n      - {id: new, uses: prompt, with: {template: Hi}}\n")
    rerun = here.run(pool=answering())
    assert (rerun.calls, rerun.cached_calls) == (0, 30)
    assert rerun.notes[0].startswith("'sum': 30 answers ended at `max_tokens` (10)")


def test_each_continuation_is_a_call_of_the_plan_and_is_cached(tmp_path: Path) -> None:
    here = World(
        tmp_path,
        PIPELINE.replace("with: {prompt", "with: {on_truncated: continue, prompt"),
        n_documents=2,
    )
    foreseen = here.plan()
    assert (foreseen.calls, foreseen.calls_are) == (18, "at most")
    first = here.run(pool=answering())
    assert (first.calls, first.notes) == (6, ())
    here.edit("    do:\n", "    do:\n      - {id: new, uses: prompt, with: {template: Hi}}\n")
    assert here.plan().calls == 0
    rerun = here.run(pool=answering())
    assert (rerun.calls, rerun.cached_calls) == (0, 6)
