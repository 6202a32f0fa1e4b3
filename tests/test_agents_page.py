"""The page for coding assistants, and `llms.txt`: what they show is run, what they name exists."""

import re
from pathlib import Path

from typer.testing import CliRunner

from paddock.runner.api import validate
from paddock.runner.cli.application import application
from tests.fakes.pool import FakePool
from tests.runner.world import World
from tests.test_guides import GUIDE, ROOT

PAGE = (ROOT / "examples" / "AGENTS.md").read_text("utf-8")
REPLY = '{"sender": "Ida Marsh", "wish": "tide tables"}'


def test_its_pipeline_is_valid_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    world = World(tmp_path, text)
    world.write("inbox/a.txt", "Please send me tide tables. Yours, Ida Marsh")
    assert validate(world.file).faults == ()
    first = world.run(pool=FakePool(answer=lambda _: REPLY))
    assert (first.status, first.calls, first.returns["counts"]["new"]) == ("completed", 1, 1)
    assert world.output("letters.csv").splitlines()[1] == "a.txt,Ida Marsh,tide tables"
    assert world.run().calls == 0


def test_the_commands_and_options_that_it_names_exist() -> None:
    shown = re.findall(r"\bpaddock ([a-z]+)([^`\n#&]*)", PAGE)
    assert len(shown) > 15
    for name, rest in dict.fromkeys(shown):
        told = CliRunner().invoke(application(name), [name, "--help"])
        assert told.exit_code == 0, name
        missing = [flag for flag in re.findall(r"--[a-z-]+", rest) if flag not in told.stdout]
        assert (name, missing) == (name, [])


def test_llms_txt_leads_to_each_page_of_the_guide() -> None:
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", (ROOT / "llms.txt").read_text("utf-8"), re.M)
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert {f"examples/{name}" for name in GUIDE} <= set(links)
