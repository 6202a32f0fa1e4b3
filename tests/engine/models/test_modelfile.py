import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.models.model_recipe import ModelRecipe, read_recipe
from paddock.engine.models.modelfile import (
    PARAMETER_KINDS,
    ModelfileCommand,
    ModelfileError,
    parse_modelfile,
    print_parameters,
    write_modelfile,
)

EVERYTHING = '''
# a reviewer
FROM smollm2:135m
  # an indented comment, and an instruction in small letters
parameter temperature 0.2
PARAMETER num_ctx 4096
PARAMETER stop "<|im_end|>"
PARAMETER stop User:
PARAMETER use_mmap false
PARAMETER mirostat 1
TEMPLATE """{{ if .System }}<s>{{ .System }}{{ end }}
{{ .Prompt }}"""
SYSTEM You are "strict", # and this is no comment.
ADAPTER ./lora.gguf
MESSAGE user Is Toronto in Canada?
MESSAGE assistant """yes
it is"""
LICENSE "
Apache
  2.0
"
RENDERER qwen3-coder
PARSER qwen3-coder
REQUIRES 0.14.0
'''


def commands_of(text: str) -> list[tuple[str, str, str]]:
    return [
        (command.name, command.key, command.value) for command in parse_modelfile(text).commands
    ]


def faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ModelfileError) as caught:
        parse_modelfile(text)
    return list(caught.value.faults)


def test_every_instruction_is_read() -> None:
    assert commands_of(EVERYTHING) == [
        ("FROM", "", "smollm2:135m"),
        ("PARAMETER", "temperature", "0.2"),
        ("PARAMETER", "num_ctx", "4096"),
        ("PARAMETER", "stop", "<|im_end|>"),
        ("PARAMETER", "stop", "User:"),
        ("PARAMETER", "use_mmap", "false"),
        ("PARAMETER", "mirostat", "1"),
        ("TEMPLATE", "", "{{ if .System }}<s>{{ .System }}{{ end }}\n{{ .Prompt }}"),
        ("SYSTEM", "", 'You are "strict", # and this is no comment.'),
        ("ADAPTER", "", "./lora.gguf"),
        ("MESSAGE", "user", "Is Toronto in Canada?"),
        ("MESSAGE", "assistant", "yes\nit is"),
        ("LICENSE", "", "\nApache\n  2.0\n"),
        ("RENDERER", "", "qwen3-coder"),
        ("PARSER", "", "qwen3-coder"),
        ("REQUIRES", "", "0.14.0"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("FROM x\r\nSYSTEM a\r\n", "a"),
        ("\ufeffFROM x\nSYSTEM a", "a"),
        ("FROM x\nSYSTEM \t a \t ", "a"),
        ('FROM x\nSYSTEM " a "', " a "),
        ('FROM x\nSYSTEM """a"b""""', 'a"b"'),
        ('FROM x\nSYSTEM ""', ""),
        ("FROM x\nSYSTEM", ""),
        ('FROM x\nSYSTEM "a\nb"\n', "a\nb"),
        ('FROM x\nSYSTEM """\r\na\r\n"""', "\na\n"),
        ('FROM x\nSYSTEM """ # a\nFROM y\n"""', " # a\nFROM y\n"),
        ("FROM x\nSYSTEM a\0b", "ab"),
        ("FROM x\nsystem Ünïcödé 🦙 \u00a0x", "Ünïcödé 🦙 \u00a0x"),
    ],
)
def test_values_are_read_as_ollama_reads_them(text: str, value: str) -> None:
    assert parse_modelfile(text).last_value("SYSTEM") == value


def test_every_fault_is_told_with_its_line() -> None:
    text = (
        "FORM smol\nPARAMETER temprature 1\nPARAMETER temperature hot\nPARAMETER top_k 1.5\n"
        "PARAMETER use_mmap maybe\nMESSAGE robot hi\nPARAMETER\nADAPTER\nSYSTEM ok\n"
        'TEMPLATE """never\nclosed'
    )
    with pytest.raises(ModelfileError) as caught:
        parse_modelfile(text, "dir/Modelfile")
    assert str(caught.value) == (
        "dir/Modelfile:1: there is no instruction 'FORM'. Did you mean FROM?\n"
        "dir/Modelfile:2: there is no parameter 'temprature'. Did you mean 'temperature'?\n"
        "dir/Modelfile:3: parameter 'temperature' must be a number, not 'hot'\n"
        "dir/Modelfile:4: parameter 'top_k' must be a whole number, not '1.5'\n"
        "dir/Modelfile:5: parameter 'use_mmap' must be true or false, not 'maybe'\n"
        "dir/Modelfile:6: the role of a MESSAGE must be system, user or assistant, not 'robot'\n"
        "dir/Modelfile:7: PARAMETER needs a name and a value\n"
        "dir/Modelfile:8: ADAPTER needs the name of a model or the path of a GGUF file\n"
        "dir/Modelfile:10: the text that TEMPLATE opens here is never closed"
    )


@given(st.text() | st.text('FROMSYTEPAR"# \n\t\r', max_size=40))
def test_whatever_a_file_says_it_is_read_or_refused_with_lines_that_are_there(text: str) -> None:
    try:
        parse_modelfile(text)
    except ModelfileError as error:
        assert error.faults
        assert all(1 <= line <= len(re.split("\r\n|\r|\n", text)) for line, _ in error.faults)


# Not: control characters, which are dropped, and the one text that the language cannot say.
TEXTS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from('\n\t "'), max_size=60
).filter(lambda text: re.search(r'"""\s*\n', text) is None and not text.startswith("\ufeff"))
NUMBERS = st.sampled_from([name for name, kind in PARAMETER_KINDS.items() if kind.kind == "number"])
COMMANDS = st.one_of(
    st.builds(
        ModelfileCommand, st.sampled_from(["TEMPLATE", "SYSTEM", "LICENSE", "RENDERER"]), TEXTS
    ),
    st.builds(
        ModelfileCommand,
        st.just("MESSAGE"),
        TEXTS,
        st.sampled_from(["system", "user", "assistant"]),
    ),
    st.builds(ModelfileCommand, st.just("PARAMETER"), TEXTS, st.just("stop")),
    st.builds(
        ModelfileCommand,
        st.just("PARAMETER"),
        st.floats(allow_nan=False, allow_infinity=False).map(str),
        NUMBERS,
    ),
)


@given(st.lists(COMMANDS, max_size=6))
def test_what_was_written_is_read_back(commands: list[ModelfileCommand]) -> None:
    text = write_modelfile([ModelfileCommand("FROM", "smol"), *commands])
    assert commands_of(text) == [
        ("FROM", "", "smol"),
        *((c.name, c.key, c.value) for c in commands),
    ]


def test_parameters_are_printed_as_editors_read_them() -> None:
    printed = print_parameters(
        {"stop": ["<|end|>", 'say "x"\n'], "temperature": 0.7, "num_ctx": 4096.0, "use_mmap": True}
    )
    assert printed.splitlines() == [
        'stop                           "<|end|>"',
        'stop                           "say \\"x\\"\\n"',
        "temperature                    0.7",
        "num_ctx                        4096",
        "use_mmap                       true",
    ]
    line = re.compile(r'^(\S+)\s+((?:".*")|\S+)$')
    assert all(line.match(printed_line) for printed_line in printed.splitlines())


def read(text: str, folder: Path) -> ModelRecipe:
    return read_recipe("mine", parse_modelfile(text), folder)


def test_files_are_looked_for_next_to_the_modelfile(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    (tmp_path / "lora.gguf").write_bytes(b"")
    recipe = read("FROM ./m.gguf\nADAPTER lora.gguf", tmp_path)
    assert recipe.files == {"m.gguf": tmp_path / "m.gguf"}
    assert recipe.adapters == {"lora.gguf": tmp_path / "lora.gguf"}
    assert recipe.base is None
    assert read(f"FROM {tmp_path}/m.gguf", tmp_path / "elsewhere").files == recipe.files


def test_a_folder_stands_for_the_gguf_files_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("mmproj.gguf", "m.gguf", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert list(read("FROM ./model", tmp_path).files) == ["m.gguf", "mmproj.gguf"]


def test_files_that_are_not_there_or_of_another_format_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "model.safetensors").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    text = "FROM ./gone.gguf\nFROM ./hf\nFROM ./empty\nADAPTER lora"
    with pytest.raises(ModelfileError) as caught:
        read_recipe("mine", parse_modelfile(text), tmp_path, path="M")
    assert str(caught.value) == (
        "M:1: there is no file './gone.gguf'\n"
        "M:2: './hf' holds weights in another format than GGUF; convert them with llama.cpp's "
        "convert_hf_to_gguf.py first\n"
        "M:3: './empty' is a folder without a GGUF file\n"
        "M:4: there is no file 'lora'"
    )
