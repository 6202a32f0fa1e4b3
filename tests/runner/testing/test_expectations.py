"""What a claim says where it does not hold: the whole text, without any model."""

from pathlib import Path

import pytest

from tests.runner.testing.bench import Bench

PIPELINE = """\
inputs: {tone: plain}
steps:
  - {id: one, uses: prompt, with: {template: "The ferry leaves at nine."}}
  - {uses: files.write, with: {path: out/a.md, text: "{{ steps.one.text }}"}}
  - {uses: files.write, with: {path: out/b.json, text: '{"n": 1}'}}
returns: {text: steps.one.text, n: 3}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, PIPELINE, "", n_documents=0)


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        ("exists: out/c.md", ("exists", "there is no 'out/c.md'.", "In 'out': a.md, b.json")),
        ("absent: out/a.md", ("absent", "'out/a.md' exists, but should not.", "")),
        (
            "exists: ../../etc",
            (
                "exists",
                "'../../etc' is outside the test's folders. A test sees only its own files.",
                "",
            ),
        ),
        (f"exists: {'x' * 300}", ("exists", f"'{'x' * 60}' cannot be used as a path.", "")),
        ('{contains: hello, file: "a\\0b"}', ("contains", "'a\0b' cannot be used as a path.", "")),
        ("{check: returns.n == 4}", ("check", "`returns.n == 4` is not true.", "returns.n = 3")),
        (
            '{check: "words(text, most=3)", file: out/a.md}',
            (
                "check",
                "`words(text, most=3)`: It has 5 words; write at most 3.",
                'text = "The ferry leaves at nine."',
            ),
        ),
        (
            "{equals: 4, of: returns.n}",
            ("equals", "`returns.n` is '3', not '4'.", "--- expected\n+++ got\n-4\n+3"),
        ),
        (
            "{contains: [ferry, train], of: returns.text}",
            ("contains", "`returns.text` does not contain 'train'.", "The ferry leaves at nine."),
        ),
        (
            "{lacks: ferry, file: out/a.md}",
            ("lacks", "'out/a.md' contains 'ferry', but should not.", "The ferry leaves at nine."),
        ),
        (
            '{regex: "at t[ae]n", file: out/a.md}',
            ("regex", "nothing in 'out/a.md' matches `at t[ae]n`.", "The ferry leaves at nine."),
        ),
        (
            "{schema: {n: str}, file: out/b.json}",
            (
                "schema",
                "'out/b.json' does not match the schema. At /n: 1 is not of type 'string'.",
                "",
            ),
        ),
        (
            "{schema: {n: str}, file: out/a.md}",
            ("schema", "'out/a.md' is not JSON.", "The ferry leaves at nine."),
        ),
        (
            "{contains: x, file: out/none.md}",
            ("contains", "'out/none.md' cannot be read: No such file or directory.", ""),
        ),
        (
            "status: quarantined",
            ("status", "the run ended as 'completed', not as 'quarantined'.", ""),
        ),
    ],
)
def test_a_claim_that_does_not_hold_says_what_is_there_instead(
    bench: Bench, claim: str, problem: tuple[str, str, str]
) -> None:
    assert bench.problem(claim) == problem


def test_a_run_that_stops_is_told_with_its_reason(bench: Bench) -> None:
    bench.edit("path: out/a.md", "path: \"{{ steps.one.text and '..' }}/out/a.md\"")
    kind, message, detail = bench.problem("check: true")
    assert (kind, message) == ("status", "the run ended as 'failed', not as 'completed'.")
    assert "path '../out/a.md' leads outside the pipeline's folders" in detail
    assert "paddock-test-" not in detail, "no path of the copy"
