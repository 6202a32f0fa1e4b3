"""Vectors on the wire."""

from paddock.engine.api.streaming import vectors_json


def test_vectors_are_written_as_json_with_nine_digits() -> None:
    assert (
        vectors_json([(0.3333333432674408, -1.0), (1e-8, 0.0)]) == b"[[0.333333343,-1],[1e-08,0]]"
    )
