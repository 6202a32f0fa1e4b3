"""Labels of short rows: `uses: decide`, `uses: chat` with a list, and a bare loop over llama.cpp.

uv run python tests/benchmarks/labels.py ag_news_test.csv [--rows 2000]

The file is that of AG News (class number, headline, text; the CSV of Zhang et al., 2015). Both
pipelines give each headline one of five labels with its confidence, four of which are right for
some. The bare loop computes eight prompts' own tokens a pass, behind what they share, and reads a
row of logits each. All by one thread, in turns; processor time of all processes, start included.
"""

import argparse
import csv
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddock.engine.llama.library import route_llama_log
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.models.model_finder import ModelFinder
from tests.benchmarks.harness import table

LABELS = ("World", "Sports", "Business", "Science and technology", "Health")
PIPELINE = """\
name: labels
models: {{clerk: {{ref: "smollm2:135m", ctx: 2k}}}}
steps:
  - {{id: rows, uses: files.rows, with: {{path: rows.csv}}}}
  - id: each
    for_each: row in steps.rows.rows
    do:
      - id: label
        uses: {step}
        with: {{model: clerk, prompt: "{{{{ row.text }}}}"}}
        reply: {{schema: {{topic: {{choose: "{labels}"}}}}, confidence: true}}
    returns: {{id: row.id, said: steps.label.output.topic}}
  - {{uses: files.write, with: {{path: out.csv, rows: "{{{{ steps.each.results }}}}"}}}}
"""
BEGINNING = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    '<|im_end|>\n<|im_start|>user\nDecide "topic".\n\nAnswer with one of these, and nothing else:\n'
)
ENDING = "<|im_end|>\n<|im_start|>assistant\n"
N_TOGETHER = 8


def processor_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run(step: str, rows: Sequence[tuple[str, str]]) -> tuple[float, list[bool]]:
    """Return the processor time of a run, and whether each row got its label."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        labels = str(list(LABELS))
        (home / "pipeline.yaml").write_text(PIPELINE.format(step=step, labels=labels), "utf-8")
        with (home / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            numbered = [(n, text) for n, (_, text) in enumerate(rows)]
            csv.writer(file).writerows([("id", "text"), *numbered])
        command = [str(Path(sys.executable).with_name("paddock")), "run", "--local"]
        env = {"HOME": folder, "PATH": "/usr/bin:/bin", "PADDOCK_NUM_THREAD": "1"}
        before = processor_s(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "pipeline.yaml"], cwd=home, env=env, check=True)
        took = processor_s(resource.RUSAGE_CHILDREN) - before
        with (home / "out.csv").open(newline="", encoding="utf-8") as file:
            said = {int(row["id"]): row["said"] for row in csv.DictReader(file)}
    return took, [said.get(n) == label for n, (label, _) in enumerate(rows)]


def bare_loop(rows: Sequence[tuple[str, str]]) -> float:
    route_llama_log()
    finder = ModelFinder(Path(), Path())
    model = Model(finder.locate("smollm2:135m").path, ModelOptions())

    def tokens(text: str) -> np.ndarray:
        return model.tokenise(text, with_special=False, parse_special=True)

    shared = tokens(BEGINNING + "".join(f"- {label}\n" for label in LABELS) + "\n")
    prompts = [tokens(text + ENDING) for _, text in rows]
    options = ContextOptions(8192, 512, N_TOGETHER + 1, 1, 64, flash_attention="on")
    n_shared, before = len(shared), processor_s(resource.RUSAGE_SELF)
    with Context(model, options) as context:
        zeros = np.zeros(n_shared, np.int32)
        context.decode(shared, np.arange(n_shared, dtype=np.int32), zeros, zeros.astype(np.int8))
        for start in range(0, len(prompts), N_TOGETHER):
            group = prompts[start : start + N_TOGETHER]
            for number in range(len(group)):
                context.copy(0, number + 1, n_shared)
            places = [np.arange(n_shared, n_shared + len(own), dtype=np.int32) for own in group]
            wanted = [np.arange(len(own)) == len(own) - 1 for own in group]
            ids = np.repeat(np.arange(1, len(group) + 1, dtype=np.int32), [*map(len, group)])
            mask = np.concatenate(wanted).astype(np.int8)
            context.decode(np.concatenate(group), np.concatenate(places), ids, mask)
            context.logits(len(group)).argmax(axis=1)
            for number in range(len(group)):
                context.trim(number + 1, 0)
    return processor_s(resource.RUSAGE_SELF) - before


def mcnemar(first: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the two-sided exact probability of so many or more rows that one alone has right.

    >>> mcnemar([True] * 6, [False] * 6)
    0.03125
    """
    n = sum(a != b for a, b in zip(first, other, strict=True))
    fewer = min(sum(a and not b for a, b in zip(*pair, strict=True))
                for pair in ((first, other), (other, first)))  # fmt: skip
    return float(min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=2_000)
    args = parser.parse_args()
    with args.file.open(newline="", encoding="utf-8") as file:
        rows = [(LABELS[int(number) - 1], title) for number, title, _ in csv.reader(file)]
    random.Random(0).shuffle(rows)
    rows = rows[-args.rows :]
    decided_s, decided = run("decide", rows)
    chat_s, said = run("chat", rows)
    bare_s = bare_loop(rows)
    found = [("decide", decided_s, sum(decided)), ("chat", chat_s, sum(said)), ("bare", bare_s, "")]
    shown = [
        (name, f"{60 * len(rows) / took:,.0f}", f"{took / bare_s:.2f}", right)
        for name, took, right in found
    ]
    print(table(("", "rows a minute of one core", "times the bare loop", "right"), shown))
    print(f"decide and chat, McNemar's exact test: p = {mcnemar(decided, said):.2g}")


if __name__ == "__main__":
    main()
