"""Which files of a pipeline's folder its consent covers: each night, when they change, or not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.bind.trust import consent, pipeline_code
from paddock.runner.bind.trust.consent import NotConsented, digests_to_agree
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.trust.permissions import permission_needs
from paddock.runner.progress.report import Report
from tests.runner.world import World, carried_out, settings

OWN = "http://127.0.0.1:11434"
SERVER = Path(__file__).parents[2] / "fakes" / "small_mcp_server.py"


def run_of(command: str, more: str = "") -> str:
    return f"steps:\n  - {{id: a, uses: run, with: {{command: {command}}}}}\n{more}"


def agree(world: World, name: str = "pipeline.yaml") -> None:
    """Agree to what a file asks for, as `paddock allow` does."""
    file = world.folder / name
    starts, consents = bind_written_starts(read_plan(file)), consents_of(world)
    consents.agree(file, digests_to_agree(starts, OWN, consents))


def check(world: World, name: str = "pipeline.yaml") -> None:
    file = world.folder / name
    starts = bind_written_starts(read_plan(file))
    consent.refuse_unconsented(starts[0], starts, OWN, consents_of(world), file)


def consents_of(world: World) -> Consents:
    return Consents(settings(world.folder).state_dir)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder, in which the tests' own state does not lie."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def night(world: World, **wishes: Any) -> Report:
    """Run as `paddock up` does: without a person."""
    report = carried_out(world, needs_consent=True, **wishes)
    assert report.status == "completed", report
    return report


def asks(world: World) -> str:
    """Return why a run is refused, which it must be."""
    with pytest.raises(NotConsented) as refused:
        carried_out(world, needs_consent=True)
    return str(refused.value)


# Name, pipeline, files beside it, the one whose code changes
PROGRAMS = {
    "make": (run_of("[make, all]"), {"Makefile": "all:\n\techo"}, "Makefile"),
    "bash without a suffix": (run_of("[bash, job]"), {"job": "echo"}, "job"),
    "a folder": (run_of("[python3, tool/]"), {"tool/__main__.py": "import x", "tool/x.py": ""},
                 "tool/x.py"),
    "python -c": (run_of('[python3, -c, "import helper"]'), {"helper.py": ""}, "helper.py"),
    "a sourced file": (run_of("[bash, job.sh]"), {"job.sh": ". ./env", "env": "A=1"}, "env"),
    "awk": (run_of("[awk, -f, prog, list]"), {"prog": "{print}", "list": ""}, "prog"),
    "cd": (run_of('[sh, -c, "cd sub && ./go"]'), {"sub/go": "#!/bin/sh"}, "sub/go"),
    "require": (run_of("[node, main.js]"), {"main.js": "require('./lib')", "lib/index.js": ""},
                "lib/index.js"),
    "perl": (run_of("[perl, prog.t]"), {"prog.t": "print 1"}, "prog.t"),
    "an input's default": (
        'inputs: {job: {type: str, default: job}}\n' + run_of('[bash, "{{ inputs.job }}"]'),
        {"job": "echo"}, "job"),
    "an environment": (run_of("[bash, -c, ls], env: {BASH_ENV: ./init}"), {"init": ""}, "init"),
    "a new module": (run_of('[python3, -c, "import helper"]'), {"helper.py": ""},
                     "helper/__init__.py"),
    "a working folder": (run_of("[make], cwd: sub"), {"sub/Makefile": "all:"}, "sub/Makefile"),
    "a script that starts another": (run_of("[./a.sh]"), {"a.sh": "./b", "b": ""}, "b"),
    "a function's data": ("steps: [{id: a, uses: './f.py:one', with: {}}]\n",
                          {"f.py": "def one() -> int: return 1", "rules": "1"}, "rules"),
    "a server": ("mcpServers: {s: {command: ./serve}}\n"
                 "steps: [{id: a, uses: tool, with: {name: s.x, args: {}}}]\n",
                 {"serve": "#!/bin/sh", "conf": ""}, "conf"),
    "a notification": ("on: {notify: [{when: [failed], command: [./tell]}]}\n"
                       "steps: [{id: a, uses: prompt, with: {template: x}}]\n",
                       {"tell": "#!/bin/sh"}, "tell"),
    "a link": (run_of("[make]"), {"Makefile": "all:"}, "GNUmakefile -> /elsewhere"),
    "a document folder": (
        run_of("[bash, in/job]", "  - {uses: files.scan, with: {root: ./in}}\n"),
        {"in/job": "echo"}, "in/job"),
    "an inner pipeline": (
        "steps: [{id: a, uses: pipeline, with: {file: lib/inner.yaml}}]\n",
        {"lib/inner.yaml": run_of("[make]"), "lib/Makefile": "all:"}, "lib/Makefile"),
    "`code:`": ("code: [scripts/**]\n" + run_of("[make]"), {"scripts/a/b": ""}, "scripts/a/b"),
    "words beside `code:`": ("code: []\n" + run_of("[bash, job]"), {"job": "echo"}, "job"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_code_that_changed_asks_again_however_a_program_comes_to_it(
    name: str, folder: Path
) -> None:
    text, beside, changed = PROGRAMS[name]
    world = World(folder, text, beside)
    agree(world)
    check(world)
    path, _, target = changed.partition(" -> ")
    if target:
        (folder / path).symlink_to(target)
    else:
        world.write(path, f"{beside.get(path, '')}\n# another\n")
    with pytest.raises(NotConsented) as refused:
        check(world)
    assert f"New or changed since: '{path}'." in str(refused.value)


DIGEST = (
    "  - {uses: files.scan, with: {root: in}}\n"
    "  - {uses: files.write, with: {path: DIGEST.md, text: x}}\n"
)
# Pipeline, files beside it, what changes
UNSEEN: dict[str, tuple[str, dict[str, str], Callable[[World], object]]] = {
    "documents": (
        run_of("[make]", "  - {uses: files.scan, with: {root: in}}\n"),
        {"in/a.txt": "", "Makefile": "all:"},
        lambda world: world.write("in/b/c.txt", "new"),
    ),
    "outputs": (
        run_of("[make]", "  - {uses: files.write, with: {path: out/a.txt, text: x}}\n"),
        {},
        lambda world: world.write("out/a.txt", "edited"),
    ),
    "state, .git, bytecode": (
        run_of("[make]"),
        {".git/config": "", "a/.git": ""},
        lambda world: [
            world.write(name, "x")
            for name in (".paddock/x", ".git/config", "a/.git", "a/__pycache__/b.pyc")
        ],
    ),
    "another pipeline": (
        run_of("[make]"),
        {"other.yaml": run_of("[ls]", DIGEST), "sub/p.yaml": run_of("[ls]"), "sub/job": ""},
        lambda world: [
            world.write("other.yaml", run_of("[rm]", DIGEST)),
            world.write("in/deep/1.txt", "x"),
            world.write("DIGEST.md", "x"),
            world.write("new.yaml", run_of("[rm]")),
            world.write("sub/job", "x"),
        ],
    ),
    "what `code:` does not name": (
        "code: [scripts]\n" + run_of("[make]"),
        {"scripts/a": ""},
        lambda world: world.write("src/a.py", ""),
    ),
    "a program elsewhere": (
        run_of("[../tools/job]"),
        {"../tools/job": "#!/bin/sh"},
        lambda world: world.write("../tools/job", "another"),
    ),
    "where a link leads elsewhere": (
        run_of("[bash, job]"),
        {"../elsewhere": ""},
        lambda world: world.write("../elsewhere", "x"),
    ),
    "a file that is gone": (
        run_of("[make]"),
        {"a": ""},
        lambda world: (world.folder / "a").unlink(),
    ),
    "a pipe and an unreadable file": (
        run_of("[make]"),
        {"locked": "x"},
        lambda world: os.mkfifo(world.folder / "pipe"),
    ),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_no_code_asks_nothing(name: str, folder: Path) -> None:
    text, beside, change = UNSEEN[name]
    world = World(folder, text, beside)
    if "../elsewhere" in beside:
        (folder / "job").symlink_to("../elsewhere")
    if "locked" in beside:
        (folder / "locked").chmod(0)
    agree(world)
    change(world)
    check(world)


@pytest.mark.parametrize(
    ("text", "beside", "changes"),
    [
        (run_of("[make]"), {"sub/Makefile": ""}, {"pipeline.yaml":
            run_of("[make]", "  - {uses: files.scan, with: {root: sub}}\n")}),
        (run_of("[make]"), {"sub/Makefile": ""}, {"sub/p.yaml": run_of("[ls]")}),
        (run_of("[make]"), {"sub/Makefile": ""}, {"p.yaml": DIGEST.replace("  -", "-").replace(
            "in}", "sub}").replace("- {uses: files.scan", "steps:\n- {uses: files.scan")}),
        (run_of("[make]"), {"conf.yml": "steps: []"}, {"conf.yml": "steps: [{run: rm}]"}),
        ("code: ['*.mk']\n" + run_of("[make]"), {}, {"pipeline.yaml":
            "code: []\n" + run_of("[make]")}),
    ],
)  # fmt: skip
def test_to_count_less_asks_again(
    text: str, beside: dict[str, str], changes: dict[str, str], folder: Path
) -> None:
    world = World(folder, text, beside)
    agree(world)
    for name, content in changes.items():
        world.write(name, content)
    assert "and this file has no consent for that" in asks(world)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (run_of("[ls]", DIGEST),
         "load 2 files beside it: 'a\\xff.py', 'b'; of 'in' only what it names"),
        ("code: [b]\n" + run_of("[ls]"), "load 1 file beside it: 'b'"),
        ("code: []\n" + run_of("[ls]"), "load 0 files beside it"),
    ],
)  # fmt: skip
def test_a_person_is_shown_what_counts(text: str, words: str, folder: Path) -> None:
    world = World(folder, text, {"b": "", "in/c": ""})
    (folder / os.fsdecode(b"a\xff.py")).touch()
    starts = bind_written_starts(read_plan(world.file))
    needs, consents = permission_needs(starts[0], OWN), Consents(folder.parent)
    assert consent.consent_words(needs, starts, consents)[1:] == [words]


# --- nights


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("[sh, job.sh]", "date >> job.log"),
        ('[sh, -c, "sh job.sh >> job.log"]', "date"),
        ("[sh, job.sh]", "date > cache; mkdir -p logs; cp cache logs/$$; rm -f logs/*5"),
        ("[python3, job.py]", "import helper, time; open('seen', 'w').write(str(time.time()))"),
    ],
)
def test_a_command_that_logs_beside_itself_asks_no_night(
    command: str, script: str, folder: Path
) -> None:
    name = "job.py" if "python3" in command else "job.sh"
    world = World(folder, run_of(command), {name: script, "helper.py": "", "job.log": "begun\n"})
    world.write("other.yaml", run_of("[ls]"))
    agree(world)
    agree(world, "other.yaml")
    for _ in range(4):
        night(world)
    assert not (folder / "__pycache__").exists()
    check(world, "other.yaml")
    carried_out(world)  # by hand
    night(world)
    world.write("helper.py", "# another")
    assert "New or changed since: 'helper.py'." in asks(world)
    agree(world)
    night(world)


@pytest.mark.parametrize(("command", "more", "beside"), [
    ("[date, +%N]", "  - {uses: files.write, with: {path: A.md, text: '{{ steps.a.stdout }}'}}\n",
     {}),
    ("['false']", "on: {notify: {when: [failed], command: [sh, tell.sh]}}\n",
     {"tell.sh": "date +%N >> told"}),
    ("[date]", "  - {uses: './f.py:log', with: {}}\n",
     {"f.py": "def log() -> int: return open('{folder}/log', 'a').write('x')"}),
    ("[date]", "  - {uses: tool, with: {name: s.facts, args: {}}}\n"
     "mcpServers: {s: {command: sh, args: [serve.sh, '{{ python }}']}}\n",
     {"serve.sh": f"date +%N >> log; $1 {SERVER}; date +%N >> log; sleep 1"}),
])  # fmt: skip
def test_what_else_a_run_writes_beside_asks_no_night(
    command: str, more: str, beside: dict[str, str], folder: Path
) -> None:
    named = {name: text.replace("{folder}", str(folder)) for name, text in beside.items()}
    world = World(folder, run_of(command, more), named)
    agree(world)
    for _ in range(3):
        carried_out(world, needs_consent=True, notify=True)
    assert {path.name for path in folder.iterdir()} & {"A.md", "told", "log"}


# --- folders without a bound


def test_a_folder_beyond_the_bound_names_its_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_code, "MOST_FILES", 3)
    world = World(folder, run_of("[ls]"), {str(n): "" for n in range(4)})
    with pytest.raises(PipelineError) as refused:
        agree(world)
    assert str(refused.value) == (
        f"{world.file}:1:1: its programs may load any file of '{folder}', and that has more than 3 "
        f"files or 64 MiB.\n"
        f"       1 | steps:\n"
        f"         | ^^^^^\n"
        f"  Name those that are code, as in `code: [scripts/**]`, or `code: []`."
    )
    world = World(folder, "code: [1]\n".replace("1", "'1'") + run_of("[ls]"))
    agree(world)
    night(world)
    world.write("5", "")
    night(world)
    world.write("1", "other")
    assert "New or changed since: '1'." in asks(world)


@pytest.mark.parametrize("command", [
    "[python3, job.py]", "[bash, -c, python3 job.py]", '[python3, -c, "import job"]',
])  # fmt: skip
def test_bytecode_beside_is_neither_believed_nor_written(command: str, folder: Path) -> None:
    world = World(folder, run_of(command, "returns: steps.a.stdout\n"))
    world.write("helper.py", "print('evil')")
    world.write("job.py", "import helper")
    subprocess.run([sys.executable, "-m", "compileall", "-q", "helper.py"], cwd=folder, check=True)
    stamp = (folder / "helper.py").stat()
    world.write("helper.py", "print('good')")
    os.utime(folder / "helper.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (kept,) = (folder / "__pycache__").iterdir()
    before = kept.stat().st_mtime_ns
    report = carried_out(world)
    assert report.returns == "good\n"
    assert [path.stat().st_mtime_ns for path in (folder / "__pycache__").iterdir()] == [before]
