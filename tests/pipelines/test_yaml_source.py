import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddock.pipelines import yaml_source
from paddock.pipelines.errors import PipelineError


def fault(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        yaml_source.parse_yaml(text, "news.yaml")
    return str(caught.value)


def fault_of(path: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        yaml_source.read_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("12:30", "12:30"), ("017", "017"), ("2024-01-31", "2024-01-31"), ("on", "on")),
        *(("yes", "yes"), ("No", "No"), ("1_000", "1_000"), ("0b11", "0b11"), ("'5'", "5")),
        *(("5", 5), ("-7", -7), ("0x1F", 31), ("0o17", 15), ("0", 0)),
        *(("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("true", True), ("False", False)),
        *(("~", None), ("null", None), ("", None), ("tru", "tru")),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = yaml_source.parse_yaml(f"key: {text}", "x.yaml").data["key"]
    assert (found, type(found)) == (value, type(value))


def test_every_key_and_value_has_its_place() -> None:
    document = yaml_source.parse_yaml("steps:\n  - id: docs\n    with: {root: ./inbox}\n", "x.yaml")
    value = document.mark(("steps", 0, "with", "root"))
    key = document.key_mark(("steps", 0, "with", "root"))
    assert (value.line, value.column, value.length) == (3, 18, 7)
    assert (key.line, key.column, key.length) == (3, 12, 4)
    assert value.snippet == "    with: {root: ./inbox}"


def test_a_syntax_error_is_told_alone_with_place_and_caret() -> None:
    assert fault("steps:\n  - {id: docs, uses: files.scan\nnam: x\n") == (
        "news.yaml:3:4: this is not valid YAML: expected ',' or '}', but got ':'.\n"
        "       3 | nam: x\n"
        "         |    ^\n"
        "  Put the text in quotes, or close the bracket before it."
    )


def test_duplicate_keys_are_faults_at_the_second_one() -> None:
    assert fault("name: a\nsteps: []\nname: b\n") == (
        "news.yaml:3:1: the key 'name' is here twice; the first is in line 1.\n"
        "       3 | name: b\n"
        "         | ^^^^\n"
        "  Remove or rename one of them."
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/object:os.system x", "tags such as"),
        ("base: &b {x: 1}\nuse: {<<: *b}", "merge keys ('<<') are not part of YAML 1.2"),
        ("a: &x [*x]", "contain itself"),
        ("a: 1\n---\nb: 2", "a single document"),
        ("\ta: 1", "Indent with spaces"),
        ("a: \x01", "control character"),
        ("a: {x: float?}", "'?' has a special meaning"),
        ("path: {{ doc.path }}", 'An expression needs quotes: "{{ … }}".'),
        ("a: 1\na: 2\nb: {c: 1, c: 2}\nd: .nan\n", "'.nan' is not a usable number"),
        ("a: " + "[" * 100, "nested deeper than 64 levels"),
        ("a: " + "9" * 5000, "is not a usable number"),
    ],
)
def test_what_the_language_leaves_out_is_a_fault(text: str, part: str) -> None:
    assert part in fault(text)


def test_a_flood_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "its aliases make more than 100,000 values" in fault("\n".join(lines))
    data = yaml_source.parse_yaml("a: &x {k: [1]}\nb: *x\n", "x.yaml").data
    assert data == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_a_file_of_ten_megabytes_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: " + b"x" * 10_000_000)
    assert "is larger than 1 MiB" in fault_of(path)
    path.write_bytes(b"\xef\xbb\xbfname: a\n")  # no part of the text
    assert yaml_source.read_yaml(path).data == {"name": "a"}


def test_what_is_no_readable_text_is_refused_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert fault_of(path) == f"{path}: there is no such file.\n  Correct the path."
    assert fault_of(tmp_path) == f"{tmp_path}: this is a folder.\n  Name the YAML file in it."
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "this is a device or a pipe" in fault_of(tmp_path / "pipe.yaml")
    path.write_bytes(b"a: 1\nb: \xff\xfe\n")
    told = f"{path}: is not UTF-8 text: byte 9, in line 2.\n  Save it as UTF-8."
    assert fault_of(path) == told


ODD_TEXT = st.text(st.characters(codec="utf-8")) | st.text("ab:-[]{}&*!|>'\"#?,%@ \n\t0123.~")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | ODD_TEXT.map(str.encode))
def test_odd_bytes_give_a_document_or_faults(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("odd") / "x.yaml"
    path.write_bytes(raw)
    try:
        yaml_source.read_yaml(path)
    except PipelineError as error:
        assert error.faults


def test_a_character_that_json_writes_as_two_escapes_is_one() -> None:
    assert yaml_source.parse_yaml('{"a": "\\ud83e\\udd99"}', "news.yaml").data == {"a": "🦙"}


def test_half_a_character_is_a_fault_with_its_place() -> None:
    with pytest.raises(PipelineError) as caught:
        yaml_source.parse_yaml('a: "x\\ud83e"\n', "news.yaml")
    assert str(caught.value).startswith(
        "news.yaml:1:4: this text has half a character: a single '\\u' escape from D800 to DFFF."
    )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@example({"a": ["a\x85b", "\u2028\n", {"\x85\n": "a\n\u2029"}]})
@given(st.dictionaries(st.sampled_from(["a", "b"]), PLAIN, min_size=1))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_as_the_same(value: dict[str, object]) -> None:
    assert yaml_source.parse_yaml(yaml_source.to_yaml(value), "news.yaml").data == value


def test_what_is_written_reads_well() -> None:
    value = {"report": "out/DIGEST.md", "version": "1e3", "text": "One.\nTwo.\n", "counts": [1, 2]}
    assert yaml_source.to_yaml(value) == (
        "report: out/DIGEST.md\nversion: '1e3'\ntext: |\n  One.\n  Two.\ncounts:\n- 1\n- 2\n"
    )
    assert (
        yaml_source.to_yaml(3) + yaml_source.to_yaml(True) + yaml_source.to_yaml([])
        == "3\ntrue\n[]\n"
    )
