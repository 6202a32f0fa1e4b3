import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from paddock.steps import base, registry
from paddock.steps.effects import Destination, MovedDocument, OutputFile
from paddock.steps.facts import Facts
from paddock.steps.param_types import InputContent, InputFile
from paddock.steps.plugins import CHECK_GROUP
from paddock.steps.registry import CHECK_FUNCTIONS, UnusableCheckPlugin

BUILT_IN = (
    *("chat", "embed", "files.read", "files.scan", "files.write"),
    *("prompt", "split", "summarise"),
)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_and_output_is_described_or_plain(name: str) -> None:
    kind = registry.load_step(name)
    schema = kind.params.model_json_schema()
    assert all("description" in field for field in schema["properties"].values()), name
    assert kind.output.model_json_schema()["type"] == "object"
    assert kind.__doc__
    assert kind.version >= 1


def test_what_a_parameter_is_for_is_said_at_it_and_follows_its_name() -> None:
    class Params(base.Params):
        goal: Annotated[str, OutputFile]
        first: Annotated[str | None, InputFile] = Field(default=None, min_length=1)
        others: Annotated[list[str], InputContent] = Field(default=[])

    class Renamed(base.Step[Params, base.Output]):
        params = Params
        facts = Facts(is_repeatable=True)

    known = registry.facts_of_kind(Renamed)
    assert known.param(OutputFile) == known.param(Destination) == "goal"
    assert known.types.names(InputContent) == ("first", "others")
    assert known.types.paths == ("goal", "first")
    assert known.is_repeatable
    assert not known.param(MovedDocument)


def test_summarize_is_another_name_for_summarise() -> None:
    assert registry.load_step("summarize") is registry.load_step("summarise")


def test_listing_names_imports_no_step() -> None:
    code = """
        import sys
        from paddock.steps import registry
        registry.step_names()
        print([name for name in sys.modules if name.startswith("paddock.steps.files")])
        registry.load_step("files.scan")
        print("paddock.steps.files.scan" in sys.modules, "paddock.steps.llm.chat" in sys.modules)
        for name in registry.step_names():
            registry.load_step(name)
        heavy = {"pypdfium2", "bs4", "wcmatch", "py3langid", "semantic_text_splitter"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert in_a_new_python(code) == "[]\nTrue False\n[]\n"


def in_a_new_python(code: str, path: Path | None = None) -> str:
    program = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def plug_in(base: Path, points: str, code: str, name: str = "acme-steps") -> None:
    info = base / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[paddock.steps]\n{points}\n")
    (base / f"{name.replace('-', '_')}.py").write_text(textwrap.dedent(code))


GOOD = """
    from paddock.steps.base import Output, Params

    class ShoutParams(Params):
        text: str

    class ShoutOutput(Output):
        text: str

    class Shout:
        params, output = ShoutParams, ShoutOutput
        version, is_pure, roles = 1, True, frozenset()

        def reads(self, params):
            return ()

        async def run(self, params, tools):
            return ShoutOutput(text=params.text.upper())
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import nowhere_to_be_found",
         "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("Shout = 3", "acme_steps:Shout is not a class"),
        ("class Shout: pass",
         "acme_steps:Shout has no `params` that is a subclass of paddock.steps.base.Params"),
        (GOOD.replace("version, is_pure, roles = 1, True, frozenset()", "version = 1"),
         "acme_steps:Shout lacks `is_pure`, `roles`"),
    ],
)  # fmt: skip
def test_a_broken_plug_in_is_told_with_its_package(tmp_path: Path, code: str, why: str) -> None:
    plug_in(tmp_path, "shout = acme_steps:Shout", code)
    program = """
        from paddock.steps import registry
        try:
            registry.load_step("shout")
        except registry.BrokenStep as error:
            print(error)
    """
    assert in_a_new_python(program, tmp_path) == (
        f"step 'shout' of package 'acme-steps' cannot be used: {why}. "
        "Update or remove 'acme-steps'.\n"
    )


def test_a_name_that_two_packages_bring_is_refused(tmp_path: Path) -> None:
    plug_in(tmp_path, "shout = acme_steps:Shout", GOOD)
    plug_in(tmp_path, "shout = other_steps:Shout", GOOD, name="other-steps")
    program = """
        from paddock.steps import registry
        try:
            registry.load_step("shout")
        except registry.BrokenStep as error:
            print(error.why, "|", *sorted(error.package.split(" and ")))
    """
    out = in_a_new_python(program, tmp_path)
    assert out == "more than one package brings it | acme-steps other-steps\n"


def test_a_plug_in_takes_no_built_in_name_away_and_is_told(tmp_path: Path) -> None:
    plug_in(tmp_path, "chat = acme_steps:Shout", GOOD)
    program = """
        from paddock.steps import registry
        print(registry.load_step("chat").__module__, registry.step_package("chat"))
        kinds, broken = registry.load_all_steps()
        print(kinds["chat"].__module__, *broken)
    """
    assert in_a_new_python(program, tmp_path) == (
        "paddock.steps.llm.chat paddock-llm\n"
        "paddock.steps.llm.chat step 'chat' of package 'acme-steps' cannot be used: it has the name "  # noqa: E501
        "of one that comes with Paddock. Update or remove 'acme-steps'.\n"
    )


def test_a_plug_in_that_cannot_be_told_to_editors_hides_no_other(tmp_path: Path) -> None:
    code = """
    class Shape:
        pass
""" + GOOD.replace(
        "text: str\n", "model_config = {'arbitrary_types_allowed': True}\n        text: Shape\n", 1
    )
    plug_in(tmp_path, "shout = acme_steps:Shout", code)
    program = """
        from paddock.steps import registry
        from paddock.runner.cli.installed_schema import installed_schema
        kinds, broken = registry.load_all_steps()
        print("shout" in kinds, "chat" in kinds, "with chat" in installed_schema()["definitions"])
        print(*broken)
    """
    out = in_a_new_python(program, tmp_path)
    assert out.startswith(
        "False True True\nstep 'shout' of package 'acme-steps' cannot be used: its parameters and "
        "outputs have no JSON Schema: PydanticInvalidForJsonSchema: "
    )
    assert out.endswith(" Update or remove 'acme-steps'.\n") and out.count("\n") == 2


def test_a_step_that_asks_a_tree_of_calls_counts_it() -> None:
    kinds = registry.load_all_steps()[0].values()
    of_trees = {kind for kind in kinds if registry.facts_of_kind(kind).calls.tree is not None}
    assert of_trees
    assert of_trees == {kind for kind in kinds if "foresee" in vars(kind)}


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "sorted_by": EntryPoint("sorted_by", "builtins:sorted", CHECK_GROUP),
        "words": EntryPoint("words", "builtins:len", CHECK_GROUP),
        "gone": EntryPoint("gone", "no_such_package:check", CHECK_GROUP),
        "number": EntryPoint("number", "math:pi", CHECK_GROUP),
    }
    monkeypatch.setattr(
        registry, "plugins", lambda group: {name: (one,) for name, one in found.items()}
    )


@pytest.mark.usefixtures("plugins")
def test_functions_of_other_packages_are_found_and_ours_go_first() -> None:
    assert CHECK_FUNCTIONS["sorted_by"] is sorted
    assert CHECK_FUNCTIONS["words"] is not len
    assert {"sorted_by", "numbers_found", "gone"} <= set(CHECK_FUNCTIONS)
    assert len(CHECK_FUNCTIONS) == len(set(CHECK_FUNCTIONS))
    assert registry.check_package("words") == "paddock-llm"
    assert registry.check_package("nothing") == ""


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", "check function 'gone' of package 'paddock-llm' cannot be used: "
         "ModuleNotFoundError: No module named 'no_such_package'. Update or remove 'paddock-llm'."),
        ("number",
         "check function 'number' of package 'paddock-llm' cannot be used: math:pi is no function. "
         "Update or remove 'paddock-llm'."),
    ],
)  # fmt: skip
def test_a_broken_function_names_its_package(name: str, sentence: str) -> None:
    with pytest.raises(UnusableCheckPlugin) as caught:
        CHECK_FUNCTIONS[name]
    assert str(caught.value) == sentence
