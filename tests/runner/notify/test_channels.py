"""Telling someone how a run ended: real web server, real mail server, real commands."""

import asyncio
import io
import json
import logging
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.engine.system.retry import Backoff
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.config.mail_server import MailServer, NoMailServer
from paddock.runner.notify import channels
from paddock.runner.notify.run_end_notices import SENT_FOLDER, send_end_notices
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings, UnattendedSettings
from tests.runner.mounting import run_with_mounts
from tests.runner.notify.receivers import ended, hook, mail_server
from tests.runner.world import settings

PIPELINE = """\
inputs: {team: {type: str, default: ops}}
on:
  notify:
    - NOTIFY
steps: [{uses: prompt, with: {template: x}}]
"""


@dataclass
class Pipe:
    """A pipeline that tells someone."""

    folder: Path
    notify: str
    smtp: str = ""

    def bound(self, **inputs: Any) -> BoundPlan:
        file = self.folder / "pipeline.yaml"
        file.write_text(PIPELINE.replace("NOTIFY", self.notify))
        return bind(read_plan(file), inputs, cwd=self.folder, default_models={})

    def settings(self) -> Settings:
        unattended = UnattendedSettings(smtp_url=self.smtp, mail_from="paddock@here")
        return replace(settings(self.folder), unattended=unattended)

    def tell(self, report: Report) -> tuple[str, ...]:
        return asyncio.run(send_end_notices(self.bound(), report, self.settings()))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "BACKOFF", Backoff(0.01, 0.01))


def test_a_webhook_gets_what_it_asked_for_as_json_and_once(tmp_path: Path) -> None:
    with hook() as server:
        pipe = Pipe(tmp_path, f"{{when: [quarantined, recovered], webhook: '{server.url}'}}")
        for report in (
            ended("failed", message="no model"),  # not asked for
            ended("quarantined", "a.pdf", "b.pdf"),
            ended("quarantined", "a.pdf", "b.pdf"),
            ended("completed"),
        ):
            assert pipe.tell(report) == ()
    assert [got["event"] for got in server.got] == ["recovered", "quarantined", "recovered"]
    first = server.got[1]
    assert (first["run"], first["pipeline"], first["n_items"]) == ("swift-otter", "digest", 2)
    assert first["items"][0] == {
        "step": "each",
        "key": "a.pdf",
        "error": "damaged",
        "is_new": True,
        "may_be_fraud": False,
    }
    assert first["text"].startswith("Pipeline 'digest': 2 items are quarantined.")
    assert server.headers[0]["Content-Type"] == "application/json"


def test_a_recovery_is_told_to_those_who_hear_of_recoveries_alone(tmp_path: Path) -> None:
    with hook() as server:
        pipe = Pipe(tmp_path, f"{{when: [recovered], webhook: '{server.url}'}}")
        for report in (ended("failed", message="x"), ended("completed"), ended("completed")):
            assert pipe.tell(report) == ()
    assert [got["event"] for got in server.got] == ["recovered"]


def test_what_one_receiver_was_sent_stays_known_where_the_state_of_another_is_damaged(
    tmp_path: Path,
) -> None:
    with hook() as server:
        whens = ("{when: [failed]", "{when: [failed, recovered]")
        first, second = (f"{when}, webhook: '{server.url}/{n}'}}" for n, when in enumerate(whens))
        pipe = Pipe(tmp_path, f"{first}\n    - {second}")
        assert pipe.tell(ended("failed", message="x")) == ()
        (file,) = (tmp_path / ".paddock" / SENT_FOLDER).glob("*.json")
        states = json.loads(file.read_text())
        states[next(iter(states))]["failed_at"] = None
        file.write_text(json.dumps(states))
        assert pipe.tell(ended("failed", message="x")) == ()
    assert len(server.got) == 3


def test_a_busy_webhook_is_called_again_with_the_same_key(tmp_path: Path) -> None:
    with hook(503, 429) as server:
        pipe = Pipe(tmp_path, f"{{when: [failed], webhook: '{server.url}'}}")
        assert pipe.tell(ended("failed", message="x")) == ()
    assert len(server.got) == 3
    assert len({headers["Idempotency-Key"] for headers in server.headers}) == 1


def test_a_webhook_that_refuses_is_told_of_without_its_address_and_tried_next_time(
    tmp_path: Path,
) -> None:
    with hook(403) as server:
        pipe = Pipe(tmp_path, f"{{when: [failed], webhook: '{server.url}'}}")
        assert pipe.tell(ended("failed", message="x")) == (
            "the notification by webhook that it failed was not delivered: 127.0.0.1 answered 403.",
        )
        assert pipe.tell(ended("failed", message="x")) == ()
    assert len(server.got) == 2


def test_a_webhook_that_never_answers_is_left_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "DEADLINE_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        pipe = Pipe(tmp_path, f"{{when: [failed], webhook: '{url}'}}")
        assert pipe.tell(ended("failed", message="x")) == (
            "the notification by webhook that it failed was not delivered: there was no answer "
            "within 0.2 s.",
        )


def test_a_command_gets_json_and_no_shell_sees_its_words(tmp_path: Path) -> None:
    script = tmp_path / "tell.py"
    script.write_text(
        "import json, os, sys\n"
        "said = [sys.argv[1:], json.load(sys.stdin)['event'], os.environ['PADDOCK_RUN']]\n"
        "json.dump(said, open('said.json', 'w'))\n"
    )
    command = f"{sys.executable} tell.py '{{{{ inputs.team }}}}' $HOME;ls"
    pipe = Pipe(tmp_path, f'{{when: [failed], command: "{command}"}}')
    bound = pipe.bound(team="a b; rm -rf x")
    report = ended("failed", message="x")
    assert asyncio.run(send_end_notices(bound, report, pipe.settings())) == ()
    assert json.loads((tmp_path / "said.json").read_text()) == [
        ["a b; rm -rf x", "$HOME;ls"], "failed", "swift-otter",
    ]  # fmt: skip


def test_a_command_gets_the_environment_that_run_steps_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_API_KEY", "of ours")
    monkeypatch.setenv("PADDOCK_LEDGER", "postgresql://me:hush@db.example/x")
    (tmp_path / "tell.py").write_text(
        "import json, os\njson.dump(dict(os.environ), open('said.json', 'w'))\n"
    )
    pipe = Pipe(tmp_path, f"{{when: [failed], command: [{sys.executable}, tell.py]}}")
    assert pipe.tell(ended("failed", message="x")) == ()
    environ = json.loads((tmp_path / "said.json").read_text())
    ours = {name: value for name, value in environ.items() if name.startswith("PADDOCK_")}
    assert ours == {
        "PADDOCK_EVENT": "failed",
        "PADDOCK_PIPELINE": "digest",
        "PADDOCK_RUN": "swift-otter",
    }
    assert "PATH" in environ


def test_a_command_that_reads_nothing_and_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.notify.channels.DEADLINE_S", 0.3)
    pipe = Pipe(tmp_path, "{when: [failed], command: [sleep, '600']}")
    assert pipe.tell(ended("failed", message="x")) == (
        "the notification by command that it failed was not delivered: 'sleep' did not end "
        "within 0.3 s.",
    )


# A module of Apprise's that is not ours to mend
APPRISE_LOADS = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")


@APPRISE_LOADS
def test_a_service_of_apprise_gets_subject_and_text(tmp_path: Path) -> None:
    with hook() as server:
        address = server.url.replace("http://", "json://")
        pipe = Pipe(tmp_path, f"{{when: [failed, recovered], service: '{address}'}}")
        assert pipe.tell(ended("failed", message="no model größer")) == ()
        assert pipe.tell(ended("completed")) == ()
    first, second = server.got
    assert first["title"].startswith("[paddock] digest: it failed")
    assert "no model größer" in first["message"]
    assert (first["type"], second["type"]) == ("failure", "success")


@APPRISE_LOADS
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("json://me:pa55word@127.0.0.1:PORT/t0ken-of-mine", "JSON: Failed to send "),
        (
            "slack://t0ken-of-mine",
            "the address is of none of the services in https://appriseit.com/services/.",
        ),
        ("json://me:pa55word@127.0.0.1:1/t0ken-of-mine", "JSON: "),
        (
            "json://127.0.0.1:1/t0ken-of-mine?+X-A=€uro",  # Apprise raises
            "JSON: UnicodeEncodeError",
        ),
        ("ntfy://127.0.0.1:1/t0ken-of-mine/t0ken-of-others", "the address names several receivers"),
    ],
)
def test_a_service_that_takes_nothing_is_told_of_and_no_secret_is_logged(
    tmp_path: Path, address: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(log)
    with hook(403, 403, 403) as server:
        address = address.replace("PORT", server.url.partition("127.0.0.1:")[2].partition("/")[0])
        pipe = Pipe(tmp_path, f"{{when: [failed], service: '{address}'}}")
        (fault,) = pipe.tell(ended("failed", message="x"))
    assert fault.startswith(
        f"the notification by service that it failed was not delivered: {words}"
    )
    logging.getLogger().removeHandler(log)
    written = capfd.readouterr()
    seen = f"{written.out}{written.err}{fault}{log.stream.getvalue()}"
    assert ("t0ken" in seen, "pa55" in seen) == (False, False)


def test_a_mail_arrives_with_subject_text_and_receivers(tmp_path: Path) -> None:
    with mail_server() as (box, url):
        pipe = Pipe(tmp_path, "{when: [failed], email: 'a@b.org, Ops <ops@b.org>'}", smtp=url)
        assert pipe.tell(ended("failed", message="no model größer")) == ()
    (mail,) = box.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("paddock@here", ["a@b.org", "ops@b.org"])
    text = mail.content.decode()
    assert "Subject: [paddock] digest: it failed" in text
    assert "Auto-Submitted: auto-generated" in text


def test_a_password_goes_over_no_open_line() -> None:
    server = MailServer.of("smtp://me:p%40ss@mail.example.org")
    assert (server.port, server.password, "p@ss" in repr(server)) == (587, "p@ss", False)
    assert MailServer.of("smtps://mail.example.org").port == 465


@pytest.mark.parametrize("url", ["mail.example.org", "http://x", "smtp://", "smtp://x:99999"])
def test_an_address_of_no_mail_server_is_not_shown(url: str) -> None:
    with pytest.raises(NoMailServer) as caught:
        MailServer.of(url)
    assert str(caught.value) == (
        "the setting `smtp` must be smtp://[user:password@]host[:port], or smtps"
    )


def test_several_machines_that_end_the_same_run_tell_once(tmp_path: Path) -> None:
    with hook() as server:
        pipe = Pipe(tmp_path, f"{{when: [failed, quarantined], webhook: '{server.url}'}}")
        bound, report = pipe.bound(), ended("quarantined", "a.pdf")

        async def both() -> None:
            first = send_end_notices(bound, report, pipe.settings())
            await asyncio.gather(first, send_end_notices(bound, report, pipe.settings()))

        asyncio.run(both())
    assert len(server.got) == 1


SMALL_DISK = """
import asyncio, subprocess, sys
from pathlib import Path
from paddock.runner.notify.run_end_notices import send_end_notices
from tests.runner.notify.test_channels import Pipe, Report

folder = Path(sys.argv[1])
(folder / ".paddock").mkdir()
size = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder / ".paddock")]
subprocess.run(size, check=True)
subprocess.run(["chmod", "700", str(folder / ".paddock")], check=True)
wire = "{when: [failed, recovered], command: [sh, -c, 'echo $PADDOCK_EVENT >> told']}"
pipe = Pipe(folder, wire)

def tell(status, message="", **how):
    report = Report("run", "p", status, {}, message=message)
    sent = send_end_notices(pipe.bound(), report, pipe.settings(), **how)
    assert asyncio.run(sent) == (), status

tell("completed")
subprocess.run(f"head -c 1M /dev/zero > {folder}/.paddock/large", shell=True, stderr=-3)
tell("failed", "the disk is full")
tell("failed", "the ledger cannot be written: the disk is full", is_of_runs=False)
(folder / ".paddock/large").unlink()
tell("completed")
"""


def test_a_full_disk_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    run_with_mounts(SMALL_DISK, tmp_path)
    assert (tmp_path / "told").read_text().split() == ["failed", "recovered"]
