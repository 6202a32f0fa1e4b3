import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from paddock.engine.request import Pool
from paddock.runner.api import validate
from paddock.runner.core.calls import model_pools
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.compare.bills import N_BILLS, Bills, clerk


@pytest.fixture
def bills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bills:
    """A folder of bills, the current one; models answer from a pool in this process."""
    bills = Bills(tmp_path / "bills")

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Pool]:
        yield bills.made

    bills.made = FakePool(answer=clerk)
    monkeypatch.setattr(model_pools._PoolOpener, "default", opened)
    monkeypatch.chdir(bills.folder)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    return bills


def compare(*arguments: str) -> Result:
    return invoke("compare", *arguments)


def test_a_person_reads_which_variant_is_better(bills: Bills) -> None:
    done = compare(".", "--model", "clerk=small,big")
    assert done.exit_code == 0, done.output
    assert "B against A: better by 0.250" in done.stdout
    assert "gold for 20 of them: gold.csv" in done.stdout
    again = compare(".", "--model", "clerk=small,big")
    assert again.exit_code == 0
    assert len(bills.made.chats) == 2 * N_BILLS


def test_a_faulty_variant_is_status_1_and_a_used_up_budget_5(bills: Bills) -> None:
    faulty = compare(".", "--prompt", "bill=prompts/none.md,prompts/b.md")
    assert (faulty.exit_code, "prompts/none.md: there is no file" in faulty.stdout) == (1, True)
    assert compare(".", "--budget", "500ms").exit_code == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gold", "none.csv"), "none.csv: cannot be read: No such file or directory."),
        (("--gold", "pipeline.yaml"), "pipeline.yaml: gold data must be a file of the kinds"),
        (("--budget", "soon"), "'--budget soon' must be a duration such as 300ms"),
        (("--step", "text"), "there is no step 'text' that answers."),
        (("--model", "clark=a"), "there is no model 'clark' under `models`."),
        (("--seed", "1"), "`--seed` belongs to `--sample`."),
    ],
)
def test_a_wrong_option_is_a_sentence_and_status_2(
    bills: Bills, arguments: tuple[str, ...], words: str
) -> None:
    done = compare(".", *arguments)
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
    assert bills.made.chats == []


@pytest.mark.parametrize("target", ["gold.csv", "prompts/b.md", "earlier.json", "inbox/00.txt"])
def test_a_report_never_replaces_a_file_that_is_no_report(bills: Bills, target: str) -> None:
    file = bills.folder / target
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text('{"variants": [], "quality": "valid"}\n')
    before = file.read_bytes()
    done = compare(".", "--report", target)
    assert done.exit_code == 2
    assert f"'{target}' exists, and is no report of Paddock." in done.stderr
    assert (file.read_bytes(), bills.made.chats) == (before, [])


def test_the_adopted_variant_is_written_into_the_file_and_what_becomes_stale_is_said(
    bills: Bills,
) -> None:
    bills.run(pool=FakePool(answer=clerk), review="accept")
    Path("pipeline.yaml").chmod(0o600)
    done = compare(".", "--model", "clerk=small,big", "--adopt", "B")
    assert done.exit_code == 0, done.output
    assert Path("pipeline.yaml").stat().st_mode & 0o777 == 0o600
    assert "pipeline.yaml: adopted clerk=big." in done.stdout
    assert done.stdout.endswith(
        "(model changed (step 'bill'))\nThat would take 0 model calls, about 0 tokens, "
        "0 model loads.\n"
    )
    text = bills.file.read_text("utf-8")
    assert text == bills.text.replace("ref: small", "ref: big")
    # the answers of the comparison are those of the pipeline now
    assert bills.run(pool=(pool := FakePool(answer=clerk)), review="accept").calls == 0
    assert pool.chats == []


def test_a_variant_that_is_not_there_or_could_not_be_run_is_not_adopted(bills: Bills) -> None:
    unknown = compare(".", "--model", "clerk=small,big", "--adopt", "C")
    assert (unknown.exit_code, bills.made.chats) == (2, [])
    assert unknown.stderr == (
        "There is no variant 'C' to adopt.\n  There are: A ('clerk=small'), B ('clerk=big').\n"
    )
    faulty = compare(".", "--prompt", "bill=prompts/none.md", "--adopt", "A")
    assert faulty.exit_code == 2
    assert "'bill=prompts/none.md' is not adopted: there is no file" in faulty.stderr
    assert bills.file.read_text("utf-8") == bills.text


def test_a_result_that_is_worse_than_an_earlier_one_is_status_4(bills: Bills) -> None:
    before = compare(".", "--model", "clerk=big", "--json")
    (bills.folder / "main.json").write_text(before.stdout, "utf-8")
    same = compare(".", "--model", "clerk=big", "--against", "main.json")
    assert same.exit_code == 0
    assert "clerk=big: compared on 20 of 20 earlier items." in same.stderr
    worse = compare(".", "--against", "main.json")  # the pipeline's own model is the small one
    assert worse.exit_code == 4
    assert worse.stderr.splitlines()[-1].startswith(
        "as it is: agreement with gold fell by 0.250 on 20 items, more than the 0 that is allowed"
    )
    assert compare(".", "--against", "main.json", "--allow-loss", "0.3").exit_code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "main.json is empty: a shell empties the file that `>` names before a command"),
        ("no JSON", "main.json: this is no result of `paddock compare --json`."),
        (
            json.dumps({"quality": "valid", "variants": [1]}),
            "main.json: this is no result of `paddock compare --json` (variants.0: Input should",
        ),
        (
            json.dumps({"quality": "valid", "variants": [{"name": "a", "scores": {}}]}),
            "main.json: it has no 'agreement' (agreement with gold) to compare with.",
        ),
        (
            json.dumps({"quality": "agreement", "variants": [{"name": "a", "scores": {"x": 1}}]}),
            "main.json: no variant and item of it is in this comparison.",
        ),
    ],
)
def test_an_earlier_result_that_cannot_be_compared_is_a_sentence(
    bills: Bills, text: str, words: str
) -> None:
    (bills.folder / "main.json").write_text(text, "utf-8")
    done = compare(".", "--against", "main.json")
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
    if "this is no result" in done.stderr or "is empty" in done.stderr:
        assert bills.made.chats == []


COMPARE = """\
compare:
  model: {clerk: [small, big]}
  prompt: {bill: prompts/a.md}
  budget: 1h
"""


def test_what_the_file_names_under_compare_is_compared_and_options_win(bills: Bills) -> None:
    bills.write("pipeline.yaml", bills.text + COMPARE)
    comparison = json.loads(compare(".", "--json").stdout)
    assert [variant["name"] for variant in comparison["variants"]] == ["clerk=small", "clerk=big"]
    comparison = json.loads(compare(".", "--set", "bill.reply.repair=0,1", "--json").stdout)
    assert [variant["name"] for variant in comparison["variants"]] == [
        "bill.reply.repair=0", "bill.reply.repair=1",
    ]  # fmt: skip
    assert bills.run(pool=FakePool(answer=clerk)).status == "completed", "a run heeds none of it"


@pytest.mark.parametrize(
    ("compared", "place", "message"),
    [
        ("set: {bill.params.temprature: [0, 1]}", 17, "unknown key 'temprature'."),
        ("set: {bill.repli: 1}", 17, "step 'chat' has no parameter 'repli'."),
        ("set: {bill.params.top_k: [1, x]}", 17, "'top_k' must be a whole number; 'x' is text."),
        ("prompt: {bill: [prompts/a.md, none.md]}", 20, "there is no file 'none.md'."),
        ("model: {clerk: []}", 19, "'clerk' names no value."),
        ("step: text", 17, "there is no step 'text' that answers."),
        (
            "set: {bill.review.when: output.nothing}",
            17,
            "`review.when`: `output` has no field 'nothing'.",
        ),
        ("allow_loss: 2", 23, "'allow_loss' must be at most 1.0; it is '2'."),
        ("calibrate: {target: 0.9}", 11, "unknown key 'calibrate'."),
    ],
)
def test_validate_finds_values_under_compare_that_no_variant_could_have(
    bills: Bills, compared: str, place: int, message: str
) -> None:
    bills.write("pipeline.yaml", f"{bills.text}compare: {{{compared}}}\n")
    faults = validate(bills.folder / "pipeline.yaml").faults
    found = [(fault.mark.line, fault.mark.column, fault.message) for fault in faults if fault.mark]
    assert found == [(27, place, message)]


@pytest.mark.parametrize("column", [2, 60])
def test_a_fault_of_a_varied_file_is_told_at_its_place_in_that_file(
    column: int, tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text("steps: [{id: a, uses: prompt, with: {template: a}}]\n")
    (tmp_path / "broken.yaml").write_text(f"steps:\n{' ' * column}- {{id: a, uses: nothing}}\n")
    (tmp_path / "p.yaml").write_text(
        "steps: [{id: sub, uses: pipeline, with: {file: good.yaml}}]\n"
        "compare: {set: {sub.file: [good.yaml, broken.yaml]}}\n"
    )
    (fault,) = validate(tmp_path / "p.yaml").faults
    assert fault.mark is not None and Path(fault.mark.file).name == "broken.yaml"
    assert (fault.mark.line, fault.mark.column) == (2, column + 17)
    assert fault.message == "with 'sub.file=broken.yaml': there is no step called 'nothing'."
