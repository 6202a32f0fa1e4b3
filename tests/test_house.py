"""The house holds together: what is packaged, who may import whom, how large modules are."""

import ast
import doctest
import gc
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import house_figures as figures

HOUSE = Path(__file__).resolve().parent.parent
ROOMS = ("pipelines", "steps", "engine", "runner")

# Who may import what is not ours: one module knows each outside thing.
ONLY_IN = {
    "llama_cpp": {"engine/llama/"},
    # Validation (`pipelines/`) asks the decoder's engine for patterns
    "llguidance": {"engine/sampling/", "engine/system/schema_patterns.py"},
    "yaml": {"pipelines/yaml_source.py"},
    "prefect": {"runner/daemon/prefect_process.py", "runner/workers/"},
    "watchdog": {"runner/watch/change_source.py"},
    "lancedb": {"steps/vectors/"},
    "pyarrow": {"steps/vectors/", "steps/tables/"},
    "duckdb": {"steps/tables/duckdb_"},
    "xlsxwriter": {"steps/tables/workbook_file.py"},
    "bs4": {"steps/readers/html.py"},
    "markdownify": {"steps/readers/html.py"},
    "tinycss2": {"steps/readers/style_sheets.py"},
    "cssselect2": {"steps/readers/style_sheets.py"},
    "pypdfium2": {"steps/readers/pdf"},
    "rensa": {"steps/text/sketches.py"},
    "distributed": {"steps/readers/dask_readers.py"},
    "dask": {"steps/readers/dask_readers.py"},
    "rapidocr": {"steps/readers/ocr_engine.py"},
    "PIL": {"engine/llama/vision.py", "engine/system/images.py", "steps/readers/ocr.py"},
    "kreuzberg": {"steps/readers/kreuzberg_reader.py"},
    "olefile": {"steps/readers/outlook.py"},
    "asn1crypto": {"steps/readers/mail.py"},
    "icalendar": {"steps/readers/calendars.py"},
    "imaplib": {"steps/sources/mailbox.py"},
    "opentelemetry": {"runner/progress/otel_spans.py"},
    "psycopg": {"runner/ledger/database/postgres.py", "steps/tables/database_postgres.py"},
    "mcp": {"steps/tools/mcp_client.py", "runner/cli/mcp_server.py"},
    "py3langid": {"pipelines/checking/language_model.py"},
    "regex": {"pipelines/checking/"},
    "jsonschema": {"pipelines/schema_validation.py"},
    "mcp_types": {"runner/cli/mcp_server.py"},
    "apprise": {"runner/notify/channels.py"},
    "lxml": {"steps/readers/office.py", "steps/readers/office_archives.py"},
}


# `paddock` on the package index is another project; ours is `paddock-llm`.
NOT_OURS = re.compile(
    r"\bpaddock\\?\[(demo|postgres|documents|duplicates|mcp|ocr|retrieval|tables)"
    r"|\b(pip3? install|uv add|uv tool install|pipx install|uvx)( [^&;|#`]*?)?"
    r" ['\"]?paddock(?![-\w/.])"
)


@pytest.fixture(scope="module", autouse=True)
def _trees_are_no_garbage() -> Iterator[None]:
    """Keep a million nodes of syntax trees out of garbage collections, and free them in the end.

    Looking through them takes twice the time that it takes to parse them.
    """
    gc.disable()
    yield
    for known in (imported, figures.module_at, figures.all_modules, figures.modules):
        known.cache_clear()
    gc.enable()


def modules() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((HOUSE / room).rglob("*.py"))


def with_examples() -> Iterator[Path]:
    yield from (file for file in modules() if ">>> " in file.read_text("utf-8"))


def module_name(file: Path) -> str:
    return "paddock." + ".".join(file.relative_to(HOUSE).with_suffix("").parts)


@cache
def imported(file: Path) -> tuple[str, ...]:
    """Name every module that a file imports by its full name, wherever it stands in the file."""
    names: list[str] = []
    for node in figures.module_at(file).nodes:
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.append(node.module)
    return tuple(names)


def project() -> dict[str, Any]:
    return tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))


def test_every_folder_with_modules_is_packaged() -> None:
    folders = {file.parent for file in modules()} | {HOUSE / "examples"}
    names = {"paddock." + ".".join(folder.relative_to(HOUSE).parts) for folder in folders}
    setuptools = project()["tool"]["setuptools"]
    assert set(setuptools["packages"]) == names
    assert all(name.startswith("paddock.") for name in setuptools["package-dir"])
    assert not (HOUSE / "__init__.py").exists()
    assert [room for room in ROOMS if not (HOUSE / room / "py.typed").is_file()] == []


def test_rooms_are_imported_by_their_full_name() -> None:
    mentioned = re.compile(rf"(?:\bfrom|\bimport|,)\s+(?:{'|'.join(ROOMS)})\b")
    bare = [
        f"{file.relative_to(HOUSE)} imports {name}"
        for folder in (*ROOMS, "tests")
        for file in (HOUSE / folder).rglob("*.py")
        if mentioned.search(file.read_text("utf-8"))  # to parse all costs seconds
        for name in imported(file)
        if name.partition(".")[0] in ROOMS
    ]
    assert bare == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_one_module_knows_each_outside_thing(library: str) -> None:
    users = {
        str(file.relative_to(HOUSE))
        for file in modules()
        if library in {name.partition(".")[0] for name in imported(file)}
    }
    places = tuple(ONLY_IN[library])
    assert [user for user in users if not user.startswith(places)] == []


@pytest.mark.parametrize("name", sorted(module_name(file) for file in with_examples()))
def test_examples_in_docstrings_are_true(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert results.failed == 0


@pytest.mark.parametrize(
    ("figure", "limit"),
    [
        (figures.modules_over_800_lines, 0),
        (lambda: len(figures.single_importers()), 71),  # the goal is 30
        (lambda: len(figures.longest_import_chain()), 10),
        (lambda: len(figures.repeated_class_names()), 0),
        (lambda: len(figures.banned_openings()), 0),
        (lambda: len(figures.banned_words()), 0),
        (lambda: len(figures.empty_names()), 24),  # stored, sent, or written by users
        (lambda: len(figures.imports_in_functions()), 85),
        (lambda: len(figures.too_many_parameters()), 1),
        (lambda: len(figures.subprocess_wrappers()), 1),
        (lambda: len(figures.atomic_writes()), 1),
        (lambda: len(figures.backoffs()), 1),
        (lambda: len(figures.html_in_f_strings()), 0),
    ],
    ids=[
        "modules over 800 lines", "modules imported by one sibling",
        "floors of imports in the middle", "class names used twice",
        "banned openings", "banned words", "empty names", "imports inside functions",
        "many parameters",
        "modules that start subprocesses", "modules that write files atomically",
        "modules that compute growing pauses", "HTML in f-strings",
    ],
)  # fmt: skip
def test_the_code_stays_easy_to_enter(figure: Callable[[], int], limit: int) -> None:
    """`python -m tests.house_figures NAME` prints what is behind a figure."""
    assert figure() <= limit


def whole_text(node: ast.Constant | ast.JoinedStr) -> str:
    """Return a text with `x` in place of each value that is inserted."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(
        whole_text(part) if isinstance(part, ast.Constant) else "x" for part in node.values
    )


def test_each_store_has_its_sql_on_one_page() -> None:
    pages = {"ledger_tables", "queries", "postgres", "sqlite_file", "order_queue"}
    pages |= {"carry_over"}  # of the tables of an earlier version
    sql = re.compile(r"(select|delete from|insert into|update|alter table) [\w(*.]+[ ,(]")
    found = {
        f"{path.name}:{node.lineno}"
        for path in (HOUSE / "runner").rglob("*.py")
        if path.stem not in pages
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant | ast.JoinedStr) and sql.match(whole_text(node).lstrip())
    }
    assert found == set()


# Texts of others, or no sentences
READS_TEXTS_OF_OTHERS = {
    "pipelines/filter_misuses.py": "Python's `inspect`",
    "pipelines/yaml_source.py": "PyYAML",
    "steps/llm/agent.py": "servers of models",
    "steps/readers/html.py": "an element of a page",
    "steps/readers/office.py": "python-docx and its like",
    "steps/tables/row_formats.py": "Python's `csv`",
    "steps/text/sentences.py": "what mails say at their end",
    "steps/tools/function_signature.py": "Pydantic",
    "steps/vectors/lance_table.py": "LanceDB",
    "engine/backends/model_servers.py": "servers of models",
    "engine/sampling/json_schema.py": "llguidance",
    "engine/system/schema_patterns.py": "llguidance",
    "engine/workers/death_reasons.py": "llama.cpp",
    "runner/core/traces/parts.py": "the key of a tool in a spec",
    "runner/daemon/service_client.py": "a refusal of a service, which may be another program",
    "runner/daemon/service_lookup.py": "what a browser is shown, also by Ollama",
}


def test_nothing_decides_by_a_sentence_of_ours() -> None:
    """Reasons, states and refusals are enums, classes or fields; a sentence is only shown."""
    found = figures.sentences_read()
    files = {place.partition(":")[0] for place in found}
    assert files - READS_TEXTS_OF_OTHERS.keys() == set(), found
    assert READS_TEXTS_OF_OTHERS.keys() <= files, "what is read no more is no exception"


def test_kinds_of_steps_are_told_apart_by_their_facts() -> None:
    """The types of its parameters and its facts are what the runner knows of a kind of step."""
    assert figures.kinds_of_steps_told_apart() == []


def test_records_are_structs_and_only_flags_of_commands_dataclasses() -> None:
    standard = re.compile(r"^from dataclasses import (\([^)]*|.*)\bdataclass\b", re.MULTILINE)
    assert standard.search("from dataclasses import (\n    dataclass,\n)")
    places = [m.place for m in figures.all_modules() if standard.search(m.text)]
    assert [place for place in places if not place.startswith("runner/cli/")] == []


def test_the_runner_has_few_modules_at_its_top() -> None:
    assert figures.at_top_of_runner() == ["__init__.py", "__main__.py", "api.py", "settings.py"]


def test_every_module_says_its_duty_first() -> None:
    found = figures.all_modules()
    assert [module.place for module in found if not ast.get_docstring(module.tree)] == []


def test_no_line_installs_the_project_that_has_our_name_on_the_package_index() -> None:
    shown = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=HOUSE
    )
    files = [HOUSE / name for name in shown.stdout.split("\0") if name]
    wrong = [
        f"{file.relative_to(HOUSE)}: {line.strip()[:120]}"
        for file in files
        if file.is_file() and file.name != "test_house.py"
        for line in file.read_text("utf-8", errors="replace").splitlines()
        if NOT_OURS.search(line)
    ]
    assert wrong == []
    assert NOT_OURS.search("pip install --upgrade uv 'paddock[demo,postgres]==0.1'")
    assert not NOT_OURS.search("pip install uv && uv run paddock run examples/pipeline.yaml")


def test_the_namespace_has_no_module_of_its_own() -> None:
    code = "import paddock; print(paddock.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE.parent
    )
    assert shown.stdout.strip() == "None"


_COMMAND = re.compile(
    r"(?:`|\n  )(?:paddock|pip|sqlite3|mkdir|rm|mv|chmod|git|openssl|curl|psql) [^`\n]*"
)
_OF_OURS = {
    "within_quotes",
    "drafts",
    "command",
    "service['kind']",
    "state.daemon.kind",
    "extra",
    "done.id",
    "options",
}
"""Values that no one else writes, and what is quoted in parts."""


def test_the_values_in_commands_that_a_person_is_to_type_are_quoted() -> None:
    unquoted = list[str]()
    for package in ("engine", "pipelines", "runner", "steps"):
        for path in sorted(Path(package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.JoinedStr):
                    continue
                parts = [
                    part.value
                    if isinstance(part, ast.Constant)
                    else f"\0{ast.unparse(part.value)}\0"
                    for part in node.values
                    if isinstance(part, ast.Constant | ast.FormattedValue)
                ]
                for command in _COMMAND.findall("".join(map(str, parts))):
                    values = set(command.split("\0")[1::2]) - _OF_OURS
                    unquoted += [
                        f"{path}:{node.lineno}: {value}"
                        for value in values
                        if not re.match(r"(?:shlex\.)?(?:quote|join)\(|shell_command\(", value)
                    ]
    assert unquoted == []
