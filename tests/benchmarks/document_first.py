"""Three steps that read one document each: in front of their instructions, and behind them.

uv run python tests/benchmarks/document_first.py

In front, the document is computed once for the three; behind, three times. Both forms of the same
pipeline run by turns, each run a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import circumstances, measure, table
from tests.benchmarks.loads import documents

FORMS = {
    "document, then instructions": "{{ steps.text.text }}\n\n%s",
    "instructions, then document": "%s\n\n{{ steps.text.text }}",
}
ASKS = {
    "sum": "Summarise the document in three sentences.",
    "who": "Name the people of the document.",
    "cost": "Name the sums of money of the document.",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What one run did."""

    seconds: float
    n_prompt_tokens: int
    n_computed_tokens: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="1 round instead of 3")
    args = parser.parse_args()
    n_rounds: int = args.rounds or (1 if args.quick else 3)
    found: dict[str, list[Done]] = {name: [] for name in FORMS}
    for number in range(n_rounds):
        for name, form in FORMS.items():
            texts = documents(number, args.documents, args.words)
            found[name].append(play(pipeline(form, args.answer_tokens), texts))
    print(circumstances(documents=args.documents, words_of_each=args.words, steps=len(ASKS)))
    headings = ["prompts", "prompt tokens", "computed", "documents/min"]
    print(table(headings, [row(name, runs, args.documents) for name, runs in found.items()]))


def pipeline(form: str, n_answer_tokens: int) -> str:
    """Write a pipeline whose prompts have this form."""
    asks = "".join(
        f"      - {{id: {name}, uses: chat, with: {{prompt: {json.dumps(form % words)}, "
        f"params: {{max_tokens: {n_answer_tokens}}}}}}}\n"
        for name, words in ASKS.items()
    )
    return f"""\
models: {{writer: {{ref: "smollm2:135m", ctx: 2k}}}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
{asks}"""


def play(text: str, texts: list[str]) -> Done:
    """Run a pipeline over documents, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="paddock-documents-") as name:
        folder = Path(name)
        (folder / "pipeline.yaml").write_text(text)
        (folder / "inbox").mkdir()
        for number, document in enumerate(texts):
            (folder / "inbox" / f"{number:03}.txt").write_text(document)
        paddock = str(Path(sys.executable).with_name("paddock"))
        child = measure([paddock, "run", "--local", "--json", "pipeline.yaml"], cwd=folder)
    tokens = json.loads(child.stdout)["tokens"]
    return Done(child.seconds, tokens["prompt"], tokens["prompt"] - tokens["prompt_reused"])


def row(name: str, runs: list[Done], n_documents: int) -> list[object]:
    """Return one line of the table: medians."""
    return [
        name,
        round(statistics.median(one.n_prompt_tokens for one in runs)),
        round(statistics.median(one.n_computed_tokens for one in runs)),
        60 * n_documents / statistics.median(one.seconds for one in runs),
    ]


if __name__ == "__main__":
    main()
