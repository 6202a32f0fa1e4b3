"""Which of a server's models is meant, and by what it is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.backends.model_discovery import matching_model, model_identity

LISTED: list[dict[str, Any]] = [
    {"id": "/models/a.gguf", "aliases": ["/models/a.gguf"]},
    {"id": "org/b", "aliases": ["bee"]},
    {"id": "c:latest"},
    {"id": "a.gguf"},
]


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("/models/a.gguf", "/models/a.gguf"),
        ("a.gguf", "a.gguf"),
        ("a", "/models/a.gguf"),
        ("/home/me/pipelines/a.gguf", "/models/a.gguf"),
        ("org/b", "org/b"),
        ("bee", "org/b"),
        ("c", "c:latest"),
        ("c:latest", "c:latest"),
        ("d", None),
        ("org", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name_an_alias_or_its_file(ref: str, meant: str | None) -> None:
    found = matching_model(ref, LISTED)
    assert (found and found["id"]) == meant


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text(), min_size=1))
def test_the_same_marks_give_the_same_identity_in_whatever_order(marks: dict[str, object]) -> None:
    other = dict(reversed(marks.items()))
    assert model_identity(marks) == model_identity(other)
    assert model_identity(marks) != model_identity({**marks, "one more": 1})
