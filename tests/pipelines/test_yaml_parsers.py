"""What libyaml parses is what the pure-Python parser reads, in the same places."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.yaml_source import YamlDocument, parse_yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
N_TEXTS = 1500  # 60,000 were tried
PIECES = (
    *"\n  :-?,[]{}'\"#|>~!%@`\\\t\r\x00\x7f\x85\u2028\ufeff\xe9\U0001f600", "? ", "- ", ": ",
    " :", "&a ",
    "*a", "!!str ", "%YAML 1.2\n", "---\n", "...\n", "|-\n", "|2\n", ">+\n", "|#",
    "\\ud83d", "\\x41",
    "<<: *a", "key: value\n", "- item\n", "\n\n", "\n  ", "a:b", '"a":1', "[a, ]", "[,a]",
    "{a: , b}",
    "[?a: b]", "{?}", "[a]?", "[[a]?b]", "x" * 1030 + ": y", "''", '""',
)  # fmt: skip


def texts() -> Iterator[str]:
    rng = random.Random(1)
    files = [file.read_text().split("\n") for file in sorted(EXAMPLES.rglob("*.yaml"))]
    for number in range(N_TEXTS):
        lines = rng.choice(files)
        first = rng.randrange(len(lines))
        text = "\n".join(lines[first : first + rng.randint(1, 12)])
        if number % 2:
            text = "".join(rng.choices([*PIECES, "a", "b: c", "key"], k=rng.randint(1, 12)))
        for _ in range(rng.randint(0, 3)):
            at, cut = rng.randint(0, len(text)), rng.choice((0, 0, 1, 3))
            text = text[:at] + rng.choice(PIECES) + text[at + cut :]
        yield text + rng.choice(("\n", "\n", ""))


def read(text: str) -> Any:
    try:
        document = parse_yaml(text, "a.yaml")
    except PipelineError as error:
        return str(error)
    return document.data, list(places(document, document.data, ()))


def places(document: YamlDocument, data: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    yield path, document.mark(path), document.key_mark(path), document.span(path)
    if isinstance(data, dict | list):
        for name, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(document, value, (*path, name))


def test_both_parsers_read_the_same_in_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml.__with_libyaml__
    every = [*texts(), *(file.read_text() for file in sorted(EXAMPLES.rglob("*.yaml")))]
    fast = [read(text) for text in every]
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    for text, found in zip(every, fast, strict=True):
        assert found == read(text), text
