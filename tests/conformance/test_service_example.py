"""The files of `examples/service`, as its page tells people to use them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.live import Live
from tests.waiting import PATIENCE_S

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "service"


def paddock(live: Live, home: Path, *words: str) -> str:
    """Run a command against the live service; gives what it prints."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")},
        "PADDOCK_HOST": live.url,
        "PADDOCK_HOME": str(home),
        "HOME": str(home),
    }
    ran = subprocess.run(
        [sys.executable, "-c", "from paddock.runner.cli.application import main; main()", *words],
        env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_reviewer_is_made_and_answers_within_its_limit(live: Live, tmp_path: Path) -> None:
    paddock(live, tmp_path, "create", "my-reviewer", "-f", str(FOLDER / "Modelfile"))

    said = paddock(live, tmp_path, "chat", "my-reviewer", "Is x=1; good?")

    with live.client() as client:
        shown = client.post("/api/show", json={"model": "my-reviewer"}).json()
    assert shown["system"] == "You review code. Answer in one sentence."
    assert said.strip()


def test_every_line_of_the_batch_has_its_answer_once(live: Live, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    asked = [json.loads(line) for line in (FOLDER / "requests.jsonl").read_text().splitlines()]

    for _ in range(2):  # the second time there is nothing to do
        paddock(live, tmp_path, "batch", str(FOLDER / "requests.jsonl"), str(results))

    answers = {
        one["custom_id"]: one["response"]
        for one in map(json.loads, results.read_text().splitlines())
    }
    assert len(results.read_text().splitlines()) == len(asked)
    assert {one["custom_id"] for one in asked} == set(answers)
    assert {one["status_code"] for one in answers.values()} == {200}
    form = json.loads(answers["form"]["body"]["choices"][0]["message"]["content"])
    assert set(form) >= {"number", "name"}
    assert len(answers["vector"]["body"]["data"][0]["embedding"]) == 384
