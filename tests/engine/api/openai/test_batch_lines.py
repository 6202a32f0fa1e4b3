"""Lines of a batch, and what a killed process leaves of their results."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai import batch_lines
from paddock.engine.api.openai.batch_lines import (
    BatchLine,
    InvalidBatchFile,
    answer_result,
    check_lines,
    error_result,
    expired_result,
    read_lines,
    recover_results,
)

URL = "/v1/chat/completions"
URLS = (URL,)


def line(custom_id: Any = "a", **extra: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": URL, "body": {"model": "m"}, **extra}
    return json.dumps(value).encode() + b"\n"


def faults(path: Path, *lines: bytes) -> list[tuple[int, str, str | None]]:
    path.write_bytes(b"".join(lines))
    with pytest.raises(InvalidBatchFile) as caught:
        check_lines(path, URLS)
    return [(fault.line, fault.code, fault.param) for fault in caught.value.faults]


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    found = faults(
        tmp_path / "in.jsonl",
        line("a"),
        b"no JSON\n",
        b"[]\n",
        b"\n",
        line(""),
        line(7),
        line("b", url="/v1/images"),
        line("b", method="GET"),
        line("b", body=[]),
        line("b", body={}),
        line("a"),
    )
    assert found == [
        (2, "invalid_json_line", None),
        (3, "invalid_json_line", None),
        (5, "missing_required_parameter", "custom_id"),
        (6, "missing_required_parameter", "custom_id"),
        (7, "invalid_url", "url"),
        (8, "invalid_method", "method"),
        (9, "missing_required_parameter", "body"),
        (10, "missing_required_parameter", "body.model"),
        (11, "duplicate_custom_id", "custom_id"),
    ]


def test_faults_are_told_in_one_text_by_their_places(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line("a") + line("a"))
    with pytest.raises(InvalidBatchFile) as caught:
        check_lines(path, URLS)
    assert str(caught.value) == "in.jsonl:2: the custom_id 'a' stands on line 1 too"


def test_a_file_without_requests_is_no_batch(tmp_path: Path) -> None:
    assert faults(tmp_path / "in.jsonl", b"\n \n") == [(1, "empty_file", None)]


def test_not_more_than_a_hundred_faults_are_told(tmp_path: Path) -> None:
    assert len(faults(tmp_path / "in.jsonl", *[b"x\n"] * 500)) == 100


def test_a_line_that_is_larger_than_a_request_may_be_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "in.jsonl"
    assert faults(path, line("a"), line("b" * 1000)) == [(2, "line_too_large", None)]
    path.write_bytes(line("a") + b" " * 900 + line("b"))
    assert check_lines(path, URLS) == 2


def test_a_byte_order_mark_and_a_missing_last_newline_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line("a") + line("b").rstrip())
    assert check_lines(path, URLS) == 2
    assert [line.custom_id for line in read_lines(path, {"a": True})] == ["b"]


LINE = BatchLine(1, "a", URL, {})


def test_results_say_whether_they_are_answers(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    refused = error_result(BatchLine(2, "b", URL, {}), ApiError(404, "model 'x' not found"))
    late = expired_result(BatchLine(3, "c", URL, {}))
    path.write_bytes(answer_result(LINE, {"id": "x"}) + refused + late)
    assert recover_results(path) == {"a": True, "b": False, "c": False}
    _, answered, last = map(json.loads, path.read_bytes().splitlines())
    assert answered["response"]["status_code"] == 404
    assert answered["response"]["body"]["error"]["type"] == "not_found_error"
    assert last["error"]["code"] == "batch_expired"


@pytest.mark.parametrize("n_left", [1, 7, 30, 100])
def test_what_is_left_of_a_last_line_is_cut_off(tmp_path: Path, n_left: int) -> None:
    path = tmp_path / "out.jsonl"
    whole = answer_result(LINE, {"text": "ü" * 50})
    path.write_bytes(
        whole + answer_result(BatchLine(2, "b", URL, {}), {"text": "x" * 100})[:n_left]
    )
    assert recover_results(path) == {"a": True}
    assert path.read_bytes() == whole


@pytest.mark.parametrize("other", [b"my diary\n", b"no newline", b'{"id": 7}\n', b"[1]\n"])
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(other)
    with pytest.raises(InvalidBatchFile, match=r"out\.jsonl:1: this line is no result of a batch"):
        recover_results(path)
    assert path.read_bytes() == other
