"""Whether a faster copy says the same: the file as it is, its BF16 copy, and the tuned copy.

uv run python tests/benchmarks/equality.py

Perplexity on 50 documents of the examples, as a multiple of the file's; 200 greedy answers against
the file's, token by token up to the first that differs; 200 JSON Schemas, each with its own fields:
valid answers, and whether along the tokens of each answer both models' vocabularies allow the same.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jsonschema  # type: ignore[import-untyped]
import numpy as np

from paddock.engine.gguf import read_header
from paddock.engine.llama.library import route_llama_log
from paddock.engine.llama.quantise import write_widened
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.measure import BenchOptions
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import GrammarCompiler
from paddock.engine.system import distribution
from paddock.engine.tuning.copy_comparison import computed_results
from paddock.engine.tuning.copy_trials import Weights
from tests.benchmarks import arena, harness, loads
from tests.benchmarks.contenders import named, ours, with_tuned_copy
from tests.benchmarks.loads import Ask
from tests.benchmarks.setup import Setup

SIZES = {"documents": 50, "answers": 200, "answer_tokens": 32, "words": 60}
TOKENS_OF_A_DOCUMENT, LEAST_LETTERS = 256, 600
FIELDS: Sequence[Mapping[str, Any]] = (
    {"type": "string", "maxLength": 40},
    {"type": "string", "pattern": "^[A-Z][a-z]{2,9}$"},
    {"type": "integer", "minimum": 0, "maximum": 5000},
    {"type": "number"},
    {"type": "boolean"},
    {"type": ["string", "null"], "maxLength": 20},
    {"enum": ["bridge", "boat", "eel", "hat"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
)


def schemas(n: int) -> list[dict[str, Any]]:
    chance = random.Random(75)
    kinds = [chance.sample(FIELDS, chance.randint(1, 4)) for _ in range(n)]
    return [
        {
            "type": "object",
            "properties": {f"field_{place}": kind for place, kind in enumerate(row)},
            "required": [f"field_{place}" for place in range(len(row))],
            "additionalProperties": False,
        }
        for row in kinds
    ]


async def answers(setup: Setup, asks: Sequence[Ask]) -> list[str]:
    async with ours(setup) as running:
        return [said.text for said in await arena.ask_all(running, asks, 0)]


def same_beginning(
    model: Vocabulary, ours: Sequence[str], theirs: Sequence[str]
) -> tuple[str, str]:
    """Return the shares of answers that are equal, and of tokens before the first that differs."""
    n_equal = n_same = n_all = 0
    for pair in zip(ours, theirs, strict=True):
        first, second = (model.tokenise(t, with_special=False, parse_special=False) for t in pair)
        n = min(len(first), len(second))
        differs = np.flatnonzero(first[:n] != second[:n])
        n_same, n_all = n_same + int(differs[0] if len(differs) else n), n_all + len(first)
        n_equal += pair[0] == pair[1]
    return f"{n_equal} of {len(ours)}", f"{n_same / n_all:.0%}"


def n_equal_masks(
    compilers: Sequence[GrammarCompiler], schema: Mapping[str, Any], tokens: Sequence[int]
) -> tuple[int, int]:
    """Return at how many tokens of an answer all models allow the same, and its tokens."""
    constraint = Constraint("json_schema", json.dumps(schema))
    matchers = [compiler.matcher(constraint) for compiler in compilers]
    n_equal = 0
    for token in tokens:
        first, *others = [matcher.mask() for matcher in matchers]
        n_equal += all(np.array_equal(first, other) for other in others)
        for matcher in matchers:
            matcher.take([token])
    return n_equal, len(tokens)


async def compare(args: argparse.Namespace, setup: Setup, folder: Path) -> str:
    like = BenchOptions(0, 0, setup.n_threads)
    matrices = {tensor.name for tensor in read_header(setup.model).tensors if len(tensor.axes) > 1}
    bf16 = folder / "bf16.gguf"
    write_widened(setup.model, bf16, matrices, "BF16", setup.n_threads)
    tuned = with_tuned_copy(setup)
    settings = tuned.settings()
    facts = ModelFinder(settings.models_dir, settings.cache_dir).find(str(setup.model))
    ir = Path(facts.ir) if facts.ir else None
    everybody = {
        "the file": (setup, Weights(setup.model)),
        "BF16": (replace(setup, model=bf16), Weights(bf16)),
        "tuned": (tuned, Weights(setup.model, ir) if ir else Weights(Path(facts.path))),
    }
    chosen = named(args.only, everybody)
    contenders = {name: one for name, one in everybody.items() if name in ("the file", *chosen)}
    found = distribution.examples_folder() or Path()
    files = sorted(file for kind in ("md", "txt") for file in found.rglob(f"*.{kind}"))
    read = (file.read_text("utf-8", errors="replace") for file in files)
    texts = [text for text in read if len(text) >= LEAST_LETTERS]
    texts = texts[: args.documents]
    written = loads.summaries(0, args.answers, args.answer_tokens, args.words)
    wanted = schemas(args.answers)
    letters = loads.documents(1, args.answers, args.words)
    forms = [
        Ask(loads.EXTRACTION, letter, 120, schema)
        for letter, schema in zip(letters, wanted, strict=True)
    ]
    models = [weights.load(like) for _, weights in contenders.values()]
    rows, first_surprise, first_said = list[list[object]](), 0.0, list[str]()
    for model, (name, (contender, _)) in zip(models, contenders.items(), strict=True):
        surprise = computed_results(model, texts, TOKENS_OF_A_DOCUMENT * len(texts), like).surprise
        said = await answers(contender, written)
        first_surprise, first_said = first_surprise or surprise, first_said or said
        ratio = math.exp(surprise - first_surprise)
        rows.append([name, f"{ratio:.4f}", *same_beginning(models[0], first_said, said)])
        arena.say(f"{name}: {rows[-1]}")
    filled = await answers(contenders[chosen[-1]][0], forms)
    n_valid = sum(is_valid(schema, text) for schema, text in zip(wanted, filled, strict=True))
    compilers = [GrammarCompiler(model) for model in (models[0], models[-1])]
    ids = [models[0].tokenise(text, with_special=False, parse_special=False) for text in filled]
    histories = zip(wanted, ids, strict=True)
    masks = np.array([n_equal_masks(compilers, s, row.tolist()) for s, row in histories]).sum(0)
    for compiler in compilers:
        compiler.close()
    headings = ["", f"perplexity, {len(texts)} documents", "answers equal", "tokens before"]
    return (
        f"{harness.table(headings, rows)}\n\nBy schemas with {chosen[-1]}: {n_valid} of "
        f"{len(filled)} answers are valid; at {masks[0]:,} of their {masks[1]:,} tokens both "
        f"allow the same."
    )


def is_valid(schema: Mapping[str, Any], text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), SIZES, {**SIZES, "answers": 20, "documents": 10})
    setup = arena.setup_of(args)
    route_llama_log()

    async def measure() -> str:
        with TemporaryDirectory() as folder:
            return await compare(args, setup, Path(folder))

    arena.show(args, measure)


if __name__ == "__main__":
    main()
