"""Cassettes: read, written, and what they say where they are broken."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.runner.testing.cassette import CassetteError, cassette_file_names, read_cassette

NO_LINE = "is not a line of a cassette. Delete the file, and record it again with `--record`."
CHAT = '{"kind": "chat", "asked": {}, "given": '


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", NO_LINE),
        ("[]", NO_LINE),
        ('{"kind": "chat"}', NO_LINE),
        (f'{CHAT}{{"text": "no usage"}}}}', NO_LINE),
        ('{"kind": "tool", "asked": {}, "given": {"results": []}}', NO_LINE),
        (f'{CHAT}{{"text": 3, "done_reason": "stop", "usage": {{}}}}}}', NO_LINE),
        (
            f'{CHAT}{{"text": "", "done_reason": "stop", "usage": {{"prompt_tokens": "9"}}}}}}',
            NO_LINE,
        ),
        ('{"kind": "embed", "asked": {}, "given": {"vectors": "", "usage": {}}}', NO_LINE),
        ('{"kind": "counts", "model": "m", "tokens": {"a": "1"}}', NO_LINE),
        ('{"kind": "model", "name": "m", "facts": {"digest": "x"}}', NO_LINE),
        (
            "<<<<<<< HEAD",
            "is a merge conflict. Resolve it, or delete the file, "
            "and record it again with `--record`.",
        ),
    ],
)
def test_a_broken_line_is_told_with_its_place(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(f'{{"cassette": 1, "test": "x"}}\n\n{line}\n')
    with pytest.raises(CassetteError) as caught:
        read_cassette(file)
    assert str(caught.value) == f"{file}:3: {words}"


def test_one_of_a_later_form_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('{"cassette": 2, "test": "x"}\n')
    with pytest.raises(CassetteError) as caught:
        read_cassette(file)
    assert str(caught.value) == (
        f"{file}: was recorded by another version of Paddock (format 2, this version reads 1). "
        "Record it again with `--record`."
    )


def given_of(text: str) -> dict[str, object]:
    return {"text": text, "done_reason": "stop", "usage": {}}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(texts, texts, max_size=6), st.dictionaries(texts, st.integers(0, 9)))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_and_the_order_is_of_no_matter(
    tmp_path_factory: pytest.TempPathFactory, calls: dict[str, str], counts: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    written = []
    for name, items in (("a", [*calls.items()]), ("b", [*reversed(calls.items())])):
        cassette = read_cassette(folder / f"{name}.jsonl")
        for prompt, text in items:
            cassette.keep("chat", {"model": "m", "messages": [["user", prompt]]}, given_of(text))
        for text, n in counts.items():
            cassette.keep_count("m", text, n)
        assert cassette.write("a test")
        written.append(cassette.file.read_bytes())
        again = read_cassette(cassette.file)
        for prompt, text in calls.items():
            found = again.find("chat", {"model": "m", "messages": [["user", prompt]]})
            assert found == given_of(text)
        assert {text: again.count("m", text) for text in counts} == counts
        assert not again.write("a test"), "nothing has changed"
    assert written[0] == written[1]


def test_tests_of_like_names_have_cassettes_of_their_own() -> None:
    names = cassette_file_names("p", ["a b", "a-b", "???", "long " * 40])
    assert len(set(names.values())) == 4
    assert names["???"].startswith("p.test-")
    assert all(len(name) < 90 for name in names.values())
