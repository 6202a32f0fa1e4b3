"""What no step may write: found before a run where the path is known, else when it is written."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from paddock.engine.request import Role
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import run
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.plan_walks import all_plans
from paddock.runner.bind.trust.protected_files import ProtectedFiles
from paddock.runner.progress.report import Report
from paddock.steps import registry
from paddock.steps.base import Output, Params, Tools
from paddock.steps.paths import resolve_path
from paddock.steps.plugins import STEP_GROUP
from tests.fakes.pool import FakePool
from tests.runner.world import ALL, World, carried_out, errors, run_arguments, settings

PARTS = {
    "prompts/say.md": "Say x",
    "schema.json": '{"type": "object"}',
    "inner.yaml": "steps: [{id: a, uses: prompt, with: {template: {file: inner.md}}}]\n",
    "inner.md": "x",
    "lib/tools.py": "import helper\ndef clean(text: str) -> str: return text",
    "lib/helper.py": "",
    "serve.sh": "#!/bin/sh",
    "build.py": "",
    "notes.txt": "a document",
}
PIPELINE = """\
mcpServers: {files: {command: ./serve.sh}}
steps:
  - {id: say, uses: chat, with: {prompt: {file: prompts/say.md}},
     reply: {schema: {file: schema.json}}}
  - {id: inner, uses: pipeline, with: {file: inner.yaml}}
  - {id: clean, uses: "lib/tools.py:clean", with: {text: x}}
  - {id: build, uses: run, with: {command: [python3, build.py, notes.txt]}}
  - {id: out, uses: files.write, with: {path: "out/{{ steps.say.text }}", text: x}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"p.yaml": PIPELINE, **PARTS}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def own(folder: Path) -> ProtectedFiles:
    bound = bind_without_inputs(read_plan(folder / "p.yaml"))
    return ProtectedFiles.of(
        ((plan.pipeline, plan.roots.base) for plan in all_plans(bound)), bound.folders
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        *((name, "is a part of the pipeline itself") for name in (
            "p.yaml", "P.YAML", "inner.yaml", "inner.md", "prompts/say.md", "schema.json",
            "lib/tools.py", "lib/helper.py", "serve.sh", "build.py", "hard-link.txt",
        )),
        *((name, "lies in '.paddock', where Paddock keeps its own state") for name in (
            ".paddock/ledger.sqlite", ".PADDOCK/x", "out/.paddock/runs/x.log",
        )),
        *((name, "is a settings file of Paddock") for name in ("paddock.toml", "out/Paddock.toml")),
        *((name, "could be taken for a pipeline by `paddock up`") for name in (
            "new.yaml", "new.YML", "elsewhere/new.yaml", "..yaml", "...yml",
        )),
        *((name, "lies where the pipeline's functions import from") for name in (
            "lib/json.py", "lib/new/deep.py", "lib/json.so", "lib/..py",
        )),
        *((name, None) for name in (
            "notes.txt", "new.md", "out/new.yaml", "out/deep/new.yml", "out/new.py", "new.py",
            ".yaml", "new.yaml.",
        )),
    ],
)  # fmt: skip
def test_what_may_be_written(path: str, why: str | None, folder: Path) -> None:
    os.link(folder / "p.yaml", folder / "hard-link.txt")
    refusal = own(folder).refusal(folder / path)
    assert (refusal and refusal.why) == why


def test_a_path_that_is_known_is_refused_before_a_run(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    paths = ["p.yaml", "sub/../.paddock/{{ inputs.x }}", "./paddock.toml", "evil.yaml",
             "out/a.yaml"]  # fmt: skip
    steps = [f'  - {{uses: files.write, with: {{path: "{path}", text: x}}}}' for path in paths]
    steps += ["  - {uses: files.move, with: {path: p.yaml, mode: delete}}"]
    steps += ["  - {uses: embed, with: {texts: [x], store: .paddock/x.lance}}"]
    file.write_text("inputs: {x: a}\nsteps:\n" + "\n".join(steps) + "\n")
    with pytest.raises(PipelineError) as caught:
        bind_without_inputs(read_plan(file))
    faults = [(fault.mark.line, fault.message) for fault in caught.value.faults if fault.mark]
    assert [line for line, _ in faults] == [3, 4, 5, 6, 8, 9]
    assert faults[4][1] == (
        "step '(files.move)' may not take 'p.yaml' away: it is a part of the pipeline itself."
    )
    assert str(PipelineError([caught.value.faults[3]])) == (
        f"{file}:6:38: step '(files.write)#4' may not write 'evil.yaml': it could be "
        f"taken for a pipeline by `paddock up`.\n"
        f'       6 |   - {{uses: files.write, with: {{path: "evil.yaml", text: x}}}}\n'
        f"         |                                      ^^^^^^^^^^^\n"
        f"  Write YAML into a folder that the step's path names, as in 'out/x.yaml'."
    )


@pytest.mark.parametrize("command", ["\"sh tell.sh 'a b'\"", "[sh, tell.sh]"])
def test_a_script_that_notifies_may_not_be_written(command: str, tmp_path: Path) -> None:
    (tmp_path / "tell.sh").write_text("#!/bin/sh")
    file = tmp_path / "p.yaml"
    file.write_text(
        f"on: {{notify: {{when: [failed], command: {command}}}}}\n"
        "steps: [{uses: files.write, with: {path: tell.sh, text: x}}]\n"
    )
    with pytest.raises(PipelineError, match=r"may not write 'tell\.sh'"):
        bind_without_inputs(read_plan(file))


BLOCK = """\
steps:
  - {id: docs, uses: files.scan, with: {root: in}}
  - for_each: doc in steps.docs.files
    do:
      - {uses: files.write, with: {path: "PATH", text: x}}
"""


@pytest.mark.parametrize(
    ("path", "inputs", "is_refused"),
    [
        ("/srv/out/{{ doc.relpath }}.md", "", True),
        ("../out/{{ doc.relpath }}.md", "", True),
        ("out/../../other/{{ doc.stem }}", "", True),
        ("../{{ doc.relpath }}", "", False),  # it may be this very folder
        ("out/{{ doc.stem }}/../../../x", "", False),
        ("{{ doc.path }}.md", "", False),
        ("/srv/out/{{ doc.relpath }}.md", "inputs: {out: {type: dir, default: .}}\n", True),
        ("/srv/out/{{ doc.relpath }}.md", "inputs: {out: {type: dir}}\n", False),
    ],
)
def test_where_each_item_would_lie_outside_is_told_before_a_run(
    path: str, inputs: str, *, is_refused: bool, tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(inputs + BLOCK.replace("PATH", path))
    if not is_refused:
        bind_without_inputs(read_plan(file))
        return
    with pytest.raises(PipelineError) as caught:
        bind_without_inputs(read_plan(file))
    (fault,) = caught.value.faults
    assert fault.message.endswith(f"' leads outside the pipeline's folders ('{tmp_path}').")
    assert (
        fault.mark is not None and fault.mark.column == 42 and "files.write" in fault.mark.snippet
    )


def ran(folder: Path, step: str, files: Mapping[str, str]) -> Report:
    """Run a step whose paths only a document says."""
    text = f"""\
steps:
  - {{id: docs, uses: files.scan, with: {{root: names}}}}
  - for_each: doc in steps.docs.files
    do:
      - {{id: name, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - {step}
"""
    return carried_out(World(folder, text, files))


WRITE = '{uses: files.write, with: {path: "{{ steps.name.text }}", text: x, on_edited: overwrite}}'


def test_a_path_that_a_document_says_is_refused_when_it_is_written(tmp_path: Path) -> None:
    names = ["pipeline.yaml", "new.yaml", ".paddock/ledger.sqlite", "paddock.toml",
             "link/pipeline.yaml", "fine.md"]  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path)
    files = {f"names/{at}.txt": name for at, name in enumerate(names)}
    found = errors(ran(tmp_path, WRITE, files))
    assert found["0.txt"] == (
        "step '(files.write)': no step may write 'pipeline.yaml': it is a part of the pipeline "
        "itself. Write to another path."
    )
    assert files.keys() - {f"names/{key}" for key in found} == {"names/5.txt"}
    assert "steps:" in (tmp_path / "pipeline.yaml").read_text()
    assert not (tmp_path / "new.yaml").exists() and not (tmp_path / "paddock.toml").exists()


@pytest.mark.parametrize(
    "step",
    [
        '{uses: files.move, with: {path: "{{ steps.name.text }}", to: gone/, mode: move}}',
        '{uses: files.move, with: {path: "{{ steps.name.text }}", mode: delete}}',
        '{uses: files.move, with: {path: a.txt, to: "{{ steps.name.text }}", on_exists: replace}}',
    ],
)
def test_a_pipeline_is_neither_moved_nor_removed_nor_replaced(step: str, tmp_path: Path) -> None:
    found = errors(ran(tmp_path, step, {"names/0.txt": "pipeline.yaml", "a.txt": "on: x"}))
    assert "it is a part of the pipeline itself" in found["0.txt"]
    assert "steps:" in (tmp_path / "pipeline.yaml").read_text()


NAMED_BY_TEXT = '{uses: files.write, with: {path: "out/{{ steps.name.text }}.md", text: x}}'


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../up", "leads out of 'out/'"),
        ("a/../../up", "leads out of 'out/'"),
        (".git/hooks/x", "names the hidden '.git'"),
        ("a/.vscode/x", "names the hidden '.vscode'"),
        (".envrc", "names the hidden '.envrc.md'"),
        ("\u200b.git/x", "names the hidden '\u200b.git'"),
    ],
)
def test_a_documents_text_leaves_no_folder_and_names_nothing_hidden(
    tmp_path: Path, name: str, why: str
) -> None:
    report = ran(tmp_path, NAMED_BY_TEXT, {"names/a.txt": name, "names/b.txt": "a/./b/../fine"})
    assert errors(report) == {
        "a.txt": f"step '(files.write)': `path` is 'out/{name}.md', made of untrusted text "
        f"(steps.name.text), which {why}. Write that folder into the path yourself, or clean the "
        f"text first."
    }
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.md")]
    assert written == ["out/a/fine.md"]


SEARCH = (
    "{uses: tool, with: {name: files.search, args: {query: KEY}, "
    'options: {root: "{{ steps.name.text }}"}}}'
)
READ = (
    '{uses: tool, with: {name: files.read, args: {path: "{{ steps.name.text }}"}, '
    "options: {root: notes}}}"
)


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ('{uses: chat, with: {prompt: x, images: [a.png, "{{ steps.name.text }}"]}}', "images.1"),
        ('{uses: chat, with: {prompt: x, images: "{{ [steps.name.text] }}"}}', "images"),
        ('{uses: files.read, with: {path: "{{ steps.name.text }}"}}', "path"),
        (SEARCH, "options.root"),
        ('{uses: run, with: {command: [ls], cwd: "{{ steps.name.text }}"}}', "cwd"),
        ('{uses: embed, with: {texts: [x], store: "{{ steps.name.text }}"}}', "store"),
        ('{uses: joins.paths, with: {names: ["{{ steps.name.text }}"]}}', "names.0"),
    ],
)
@pytest.mark.usefixtures("joins")
def test_a_documents_text_names_nothing_hidden_in_lists_arguments_and_steps_of_packages(
    tmp_path: Path, step: str, place: str
) -> None:
    files = {"names/a.txt": ".x/secret.png", ".x/secret.png": "KEY"}
    (error,) = errors(ran(tmp_path, step, files)).values()
    assert f"`{place}` is '.x/secret.png', made of untrusted text (steps.name.text)" in error
    assert "which names the hidden '.x'" in error


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (READ, "the path is 'notes/{}'"),
        ('{uses: joins.paths, with: {folder: notes, names: ["{{ steps.name.text }}"]}}',
         "the path is 'notes/{}.md'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "why"), [(".env", "names the hidden '.env"), ("../a", "leads out of 'notes/'")]
)
@pytest.mark.usefixtures("joins")
def test_a_path_that_a_step_joins_of_a_documents_text_is_checked_as_well(
    tmp_path: Path, step: str, what: str, name: str, why: str
) -> None:
    (tmp_path / "notes").mkdir()
    (error,) = errors(ran(tmp_path, step, {"names/a.txt": name})).values()
    assert f"{what.format(name)}, made of untrusted text (steps.name.text)" in error
    assert f"which {why}" in error


@pytest.mark.usefixtures("joins")
def test_a_step_of_a_package_joins_what_the_author_writes_and_plain_names(tmp_path: Path) -> None:
    step = '{uses: joins.paths, with: {folder: .notes/../.x, names: ["{{ steps.name.text }}"]}}'
    report = ran(tmp_path, step, {"names/a.txt": "plain", "names/b.txt": "a"})
    assert [item.error for item in report.items] == [None, None]


class JoinsParams(Params):
    """A folder, and names in it."""

    folder: str | None = None
    names: list[str]


class JoinsOutput(Output):
    """The paths."""

    paths: list[str]


class Joins:
    """A step of a package, which makes paths of its parameters."""

    params: ClassVar[type[JoinsParams]] = JoinsParams
    output: ClassVar[type[JoinsOutput]] = JoinsOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: JoinsParams) -> tuple[str, ...]:
        return ()

    async def run(self, params: JoinsParams, tools: Tools) -> JoinsOutput:
        folder = params.folder
        texts = [name if folder is None else f"{folder}/{name}.md" for name in params.names]
        return JoinsOutput(paths=[str(resolve_path(tools.files.roots, text)) for text in texts])


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the registry know one more step, as a package would bring it."""
    point, known = EntryPoint("joins.paths", f"{__name__}:Joins", STEP_GROUP), registry._points_of

    def points(group: str) -> tuple[EntryPoint, ...]:
        return (point,) if group == "joins.paths" else known(group)

    monkeypatch.setattr(registry, "_points_of", points)


@pytest.mark.parametrize("home", [".paddock", "state", "state/of/paddock"])
@pytest.mark.parametrize(
    "step",
    [
        "{uses: files.read, with: {path: PATH}}",
        "{uses: files.read, with: {path: 'link'}}",
        "{uses: files.read, with: {path: 'sub/../PATH'}}",
        "{uses: files.rows, with: {path: PATH, format: csv}}",
        "{uses: files.scan, with: {root: HOME}}",
        "{uses: files.move, with: {path: PATH, to: out/token, mode: copy}}",
        "{uses: files.move, with: {path: a.txt, to: PATH}}",
        "{uses: files.write, with: {path: PATH, text: mine, on_edited: overwrite}}",
        "{uses: pipeline, with: {file: inner.yaml}}",
        "{uses: tool, with: {name: files.read, args: {path: NAME}, options: {root: HOME}}}",
    ],
)
def test_no_pipeline_touches_the_tokens_of_a_home_that_its_folder_holds(
    tmp_path: Path, step: str, home: str
) -> None:
    for name in ("review.token", "api-keys", "up/consents.json"):
        path = f"{home}/{name}"
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("hush\nhush\n")
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(path)
        (tmp_path / "inner.yaml").write_text(
            f"name: inner\nsteps: [{{id: a, uses: files.read, with: {{path: {path}}}}}]\n"
            "returns: {a: steps.a.text}\n"
        )
        filled = step.replace("PATH", path).replace("HOME", home).replace("NAME", name)
        text = f"name: thief\nsteps:\n  - {{id: a, {filled[1:]}\nreturns: {{all: steps.a}}\n"
        world = World(tmp_path, text)
        own = replace(settings(tmp_path), state_dir=tmp_path / home, allow=ALL)
        try:
            report = run(
                world.file, None, *run_arguments(local=True, settings=own, pool=FakePool())
            )
        except PipelineError as error:
            assert "hush" not in str(error)
        else:
            assert "hush" not in json.dumps(report.as_json(), default=str)
        assert file.read_text() == "hush\nhush\n"
        assert not (tmp_path / "out").exists()
    (tmp_path / "pipeline.yaml").unlink()
