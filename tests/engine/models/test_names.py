from __future__ import annotations

import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import ModelName, parse_name

FIRST = string.ascii_letters + string.digits + "_"


def part(more: str, longest: int = 80) -> st.SearchStrategy[str]:
    rest = st.text(FIRST + more, max_size=longest - 1)
    return st.builds(str.__add__, st.sampled_from(FIRST), rest)


NAMES = st.builds(ModelName, part("-.", 350), part("-"), part("-."), part("-."))


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("smol", "registry.ollama.ai/library/smol:latest", "smol:latest"),
        ("smol:135m", "registry.ollama.ai/library/smol:135m", "smol:135m"),
        ("library/smol", "registry.ollama.ai/library/smol:latest", "smol:latest"),
        ("eva/smol:x", "registry.ollama.ai/eva/smol:x", "eva/smol:x"),
        ("hf.co/o/r-GGUF:Q4_K_M", "hf.co/o/r-GGUF:Q4_K_M", "hf.co/o/r-GGUF:Q4_K_M"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
        ("http://h:1/a/b:c", "h:1/a/b:c", "h:1/a/b:c"),
        ("_x", "registry.ollama.ai/library/_x:latest", "_x:latest"),
        ("Registry.Ollama.AI/Library/A", "Registry.Ollama.AI/Library/A:latest", "A:latest"),
    ],
)
def test_what_a_name_leaves_out_is_the_defaults(text: str, full: str, short: str) -> None:
    name = parse_name(text)
    assert (name.full, name.short) == (full, short)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "a/", "/a", "a:", ":a", "a//b", "../a", "a/../b", "..", ".", "a:..", "-a",
        "a b", "a\n", "a\0", "é", "a:é", "a/b/c/d", "n.s/a", "a" * 81,
        "a:" + "b" * 81, "x" * 10_000,
        "h" * 351 + "/a/b", "a:b:c", "a@b", "a+b", "ftp://h/a/b", "http://a/b", "http://", "a\\b",
        "~/a", "c:/x",
    ],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(text)
    assert caught.value.text == text
    assert len(str(caught.value)) < 400


def test_the_refusal_says_which_part_is_wrong_and_how_names_are_written() -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name("team.a/model")
    assert str(caught.value) == (
        "invalid model name 'team.a/model': its namespace cannot be 'team.a'. Names are "
        "[host/][namespace/]model[:tag], of letters, digits, '_', '-' and '.'."
    )


@given(NAMES)
def test_every_name_is_read_back_from_both_of_its_forms(name: ModelName) -> None:
    assert parse_name(name.full) == name
    assert parse_name(name.short).key == name.key


@given(st.text(max_size=60) | st.text(FIRST + "-.:/\\~", max_size=60))
def test_whatever_is_read_as_a_name_is_a_place_four_steps_below_the_manifests(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName:
        return
    path = PurePosixPath("manifests").joinpath(*name.parts)
    assert len(path.parts) == 5
    assert not {"..", "."} & set(path.parts)


def test_a_name_may_be_written_in_any_case() -> None:
    assert parse_name("Smol:Latest").key == parse_name("smol").key
