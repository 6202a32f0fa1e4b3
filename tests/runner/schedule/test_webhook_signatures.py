"""Who may call a webhook."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.schedule.webhook_signatures import (
    GITHUB_HEADER,
    OWN_HEADER,
    BadSignature,
    check_signature,
)
from tests.runner.schedule.signed_calls import sign_body

SECRET, BODY = "secret", b'{"a": 1}'


def github(secret: str, body: bytes) -> dict[str, str]:
    return {GITHUB_HEADER: "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def refusal(headers: dict[str, str], body: bytes = BODY, now_s: float = 1000.0) -> str:
    with pytest.raises(BadSignature) as caught:
        check_signature(SECRET, headers, body, now_s)
    return str(caught.value)


def test_calls_signed_as_github_signs_them_or_in_our_way_are_believed() -> None:
    check_signature(SECRET, github(SECRET, BODY), BODY, 1000.0)
    check_signature(SECRET, {OWN_HEADER: sign_body(SECRET, BODY, 1000)}, BODY, 1200.0)


def test_a_call_without_with_a_wrong_or_with_an_old_signature_is_refused() -> None:
    assert refusal({}) == (
        "the call is not signed: X-Hub-Signature-256 or X-Paddock-Signature is missing."
    )
    wrong = "the signature in X-Hub-Signature-256 is wrong."
    assert refusal(github("other", BODY)) == wrong
    assert refusal(github(SECRET, b"{}")) == wrong
    own = {OWN_HEADER: sign_body(SECRET, BODY, 1000)}
    assert refusal(own, b"{}") == "the signature in X-Paddock-Signature is wrong."
    old = "the call was signed 1000 s ago; compare the clocks."
    assert refusal(own, now_s=2000.0) == old
    assert refusal({OWN_HEADER: "v1=00"}) == "X-Paddock-Signature must read `t=SECONDS,v1=HEX`."


@given(st.text(), st.sampled_from([GITHUB_HEADER, OWN_HEADER]))
def test_no_other_text_is_a_signature(text: str, header: str) -> None:
    with pytest.raises(BadSignature):
        check_signature(SECRET, {header: text}, BODY, 1000.0)
