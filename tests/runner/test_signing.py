"""What Paddock signs is known again, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.daemon.run_signatures import SIGNATURE, Signer, signer_for

SIGNER = Signer(b"key")
PARAMETERS = {"path": "/p.yaml", "inputs": {"n": 1e22, "half": 0.5, "ü": ["x", None]}, "share": 2.0}


def test_a_signature_survives_a_database() -> None:
    signed = SIGNER.signed(PARAMETERS, "key-1")
    assert SIGNER.has_signed(json.loads(json.dumps(signed)), "key-1")
    as_numbers = signed | {"inputs": {"ü": ["x", None], "half": 0.5, "n": 10**22}, "share": 2}
    assert SIGNER.has_signed(as_numbers, "key-1")  # as PostgreSQL's jsonb has them
    assert SIGNER.signed(signed, "key-1") == signed


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "/q.yaml"}, {"inputs": {}}, {"retry_failed": True}, {SIGNATURE: ""},
        {SIGNATURE: None}, {SIGNATURE: "ü"}, {"share": "2"}, {"share": True},
    ],
)  # fmt: skip
def test_no_change_goes_unseen(changed: dict[str, Any]) -> None:
    signed = SIGNER.signed({**PARAMETERS, "share": 1}, "key-1")
    assert not SIGNER.has_signed(signed | changed, "key-1")


def test_it_is_of_one_run_and_of_one_key() -> None:
    signed = SIGNER.signed(PARAMETERS, "key-1")
    assert not SIGNER.has_signed(signed, "key-2")
    assert not SIGNER.has_signed(SIGNER.signed(PARAMETERS, ""), "")  # a run without a key is any
    assert not Signer(b"other").has_signed(signed, "key-1")
    assert "key" not in repr(SIGNER)


def test_the_key_lies_with_the_state(tmp_path: Path) -> None:
    here, again, other = (signer_for(tmp_path / name) for name in ("a", "a", "b"))
    assert here == again != other
