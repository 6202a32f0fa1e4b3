"""Secrets are found in texts however they are written there."""

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.system.text import last_part, shorten, without_middle
from paddock.runner.config.pipeline_secrets import SHORTEST_SECRET, Secrets, redactor

SECRETS = st.text(min_size=8).filter(lambda text: len(text.strip()) >= 8)


@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: f"https://x/?key={quote(text, safe='')}&n=1",
        lambda text: f"https://x/?key={quote_plus(text)}",
        lambda text: f"Basic {base64.b64encode(text.encode()).decode()}",
        lambda text: f"Traceback: '{text}' is wrong",
    ],
)
def test_a_secret_is_found_as_texts_write_it(write: object) -> None:
    secret = 's3cr/t+"k\\ä' + "\n\t7"
    text = write(secret)  # type: ignore[operator]
    result = redactor({"key": secret})(text)
    assert "***" in result
    assert "s3cr" not in result


WITHIN = "[A-Za-z0-9+/=_-]{0,8}[*]{3}[A-Za-z0-9+/=_-]{0,8}"


@pytest.mark.parametrize(
    ("write", "left"),
    [
        (html.escape, "[*]{3}"),
        (lambda text: html.escape(text, quote=False), "[*]{3}"),
        (lambda text: text.encode().hex(), "[*]{3}"),
        (lambda text: text.encode().hex().upper(), "[*]{3}"),
        (lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text)), "[*]{3}"),
        (lambda text: base64.b64encode(f"ann:{text}".encode()).decode(), WITHIN),
        (lambda text: base64.b64encode(f"a:{text}:b".encode()).decode(), WITHIN),
        (lambda text: base64.b64encode(f"b:c{text}:bc".encode()).decode(), WITHIN),
        (lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="), WITHIN),
        (lambda text: shorten(f"it said {text} and more", 40), "it said [*]{3}…"),
        (lambda text: last_part(f"it said {text} and more", 40), "…[*]{3} and more"),
        (
            lambda text: without_middle(f"it said {text} and more", 40),
            r"it said [*]{3}\n\[…\]\n5 and more",
        ),
    ],
)
def test_a_secret_is_found_escaped_within_more_and_cut_off(
    write: Callable[[str], str], left: str
) -> None:
    redact = redactor({"key": "Zq7/kW+9<x'Rt4mNp&2vLs8yHd0cBfGuJ3eKa5"})
    result = redact(write("Zq7/kW+9<x'Rt4mNp&2vLs8yHd0cBfGuJ3eKa5"))
    assert re.fullmatch(left, result), result
    assert redact("nothing… is cut\n[…]\nhere…") == "nothing… is cut\n[…]\nhere…"


@given(st.text(), SECRETS, st.text())
def test_no_text_keeps_a_secret(before: str, secret: str, after: str) -> None:
    assert secret not in redactor({"a": secret})(f"{before}{secret}{after}").replace("***", "")


def test_of_two_secrets_of_which_one_begins_the_other_nothing_is_left() -> None:
    redact = redactor({"a": "secret", "b": "secret-of-mine"})
    assert redact("secret-of-mine and secret") == "*** and ***"


def test_a_line_of_a_key_in_several_lines_is_one_too() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEF\n-----END KEY-----"
    redact = redactor({"key": key})
    assert redact("in line 2: MIIEvQIBADANBgkqhkiG9w0!") == "in line 2: ***!"


def test_a_value_that_is_too_short_takes_no_words_out() -> None:
    assert redactor({"a": "x" * (SHORTEST_SECRET - 1)})("xxx") == "xxx"


def test_data_is_redacted_to_its_leaves_and_else_the_same() -> None:
    data = {"a": ["secret", 1, None, {"my secret": (True, "no")}]}
    result = Secrets(redact=redactor({"k": "secret"})).redacted(data)
    assert result == {"a": ["***", 1, None, {"my ***": [True, "no"]}]}
