"""What a run tells whoever started it, before it has begun."""

from __future__ import annotations

from paddock.runner.deployed import Orders, _Named


def test_what_a_run_waits_for_is_told_until_it_begins() -> None:
    told: list[str] = []
    named = _Named(Orders(waits=told.append))
    named.note("other machines know this folder")
    named.note("waiting for run 'calm-vole', which is of the same group")
    assert told == ["waiting for run 'calm-vole', which is of the same group"]
    named.began("warm-trout", "letters", ())
    named.note("waiting for run 'calm-vole' on gpu-2, which works on the rest")
    assert told[1:] == [""]
