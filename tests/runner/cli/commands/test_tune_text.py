from dataclasses import replace
from pathlib import Path

from paddock.runner.cli.model_tables import tuned_copy_text
from tests.engine.tuning.test_tuned_copies import copy_in


def test_what_a_copy_is_worth_is_said_in_lines_a_person_can_weigh(tmp_path: Path) -> None:
    made = copy_in(tmp_path, "a" * 64)
    assert tuned_copy_text(replace(made, more_bytes=47_000_000)) == [
        "smollm2:135m: Q8_0, prompts 2.0 times as fast, top-1 agreement 95.4 %, 47 MB more.",
        "It writes one answer 0.9 times as fast, and eight at once 1.4 times.",
        "The copy is used from now on; `paddock tune smollm2:135m --undo` removes it.",
    ]
    measured = replace(made, exact_before=0.948, exact_after=0.949)
    assert tuned_copy_text(measured)[2] == (
        "Of 768 next tokens, exact arithmetic agrees with the original at 94.8 % and with "
        "the copy at 94.9 %: processors round."
    )
    assert tuned_copy_text(replace(made, format="Q4_0"))[2] == (
        "Q4_0 is lossy: answers differ from the original's more often."
    )
    busy = replace(made, after=replace(made.after, share=0.5))
    assert tuned_copy_text(busy)[2] == (
        "Other programs used the processor: these are speeds of one thread, by processor time."
    )


def test_speeds_on_own_documents_and_what_stays_are_said(tmp_path: Path) -> None:
    made = copy_in(tmp_path, "a" * 64)
    own = replace(made, n_documents=12, after=replace(made.after, n_prompt_tokens=300))
    assert tuned_copy_text(own)[2] == (
        "On 12 documents of yours, tokens/s before and now: prompts of 300 tokens 500 and 1,000, "
        "one answer 190 and 175, eight at once 280 and 400. Agreement is that of 768 of their "
        "tokens."
    )
    mixed = replace(made, changed_from="Q6_K", n_changed=31, n_kept=180)
    assert tuned_copy_text(mixed)[0].startswith(
        "smollm2:135m: Q6_K as Q8_0, prompts 2.0 times as fast"
    )
    assert tuned_copy_text(mixed)[2] == (
        "31 of its matrices were in Q6_K, which this machine computes slowly; 180 others are "
        "unchanged."
    )
