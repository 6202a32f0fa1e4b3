"""`paddock setup`: what it writes, asks and undoes; its units as systemd itself reads them.

`systemctl` is a small program of the test, so that no manager of this machine is touched.
"""

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from paddock.engine.api.api_keys import read_keys
from paddock.runner.cli import setup_plan
from paddock.runner.cli.setup_files import block_state
from paddock.runner.cli.systemd_unit import UNIT_NAME, UpUnit
from paddock.runner.settings import read_settings
from tests.fakes.privileges import without_roots_privilege
from tests.runner.cli.commands.shell import Ended, paddock_here
from tests.runner.cli.commands.terminal import CTRL_C, terminal
from tests.runner.notify.receivers import mail_server

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "$0.calls"
case "$*" in
*is-system-running) cat "$0.state" ;;
*is-active*) cat "$0.active" 2>/dev/null || echo inactive ;;
*is-enabled*) cat "$0.enabled" 2>/dev/null || echo disabled ;;
*restart*) test ! -e "$0.refusal" || { cat "$0.refusal" >&2; exit 1; }
    echo active > "$0.active" ;;
*enable*) echo enabled > "$0.enabled" ;;
esac
"""


WHAT = "what it wrote there"


@dataclass
class Person:
    """An account with a folder of pipelines, and a `systemctl` of its own."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pipelines = self.home / "pipelines"
        self.program = self.home / "bin" / "systemctl"
        for folder in (self.pipelines, self.program.parent):
            folder.mkdir(parents=True)
        self.program.write_text(SYSTEMCTL)
        self.program.chmod(0o755)
        self.systemd_is("offline")
        self.environ = {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": "",
            "PADDOCK_HOME": "",
            "PATH": f"{self.program.parent}:{os.environ['PATH']}",
        }

    @property
    def unit(self) -> Path:
        return self.home / ".config/systemd/user/paddock-up.service"

    @property
    def settings_file(self) -> Path:
        return self.home / ".config/paddock/paddock.toml"

    @property
    def keys(self) -> Path:
        return self.home / ".paddock/api-keys"

    def systemd_is(self, state: str) -> None:
        self.program.with_name("systemctl.state").write_text(state)

    def calls(self) -> list[str]:
        calls = self.program.with_name("systemctl.calls").read_text().splitlines()
        return [call for call in calls if " is-" not in call]

    def written(self) -> dict[str, str]:
        """Return the files of the home folder and their text, but for those of `systemctl`.

        Nor the mark of the first start, which each command makes.
        """
        found = (path for path in self.home.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.home)): path.read_text()
            for path in found
            if path.parent != self.program.parent and path.parent.name != "ledgers"
        }

    def setup(self, *words: str, **environ: str) -> Ended:
        return paddock_here("setup", *words, environ={**self.environ, **environ}, cwd=self.home)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home")


# The plan, and consent


def test_without_consent_it_only_shows_what_it_would_do(person: Person) -> None:
    ended = person.setup("pipelines", "--keys")
    assert ended.out.splitlines() == [
        f"write {person.keys}: a new API key, for this account alone to read",
        f"write {person.unit}: `paddock up`, from your first login",
    ]
    assert (ended.status, ended.err) == (
        2, "Nothing was changed.\n  `--yes` does this without a question.\n",
    )  # fmt: skip
    assert person.written() == {}


def test_a_dry_run_shows_the_unit_and_writes_nothing(person: Person) -> None:
    ended = person.setup("pipelines", "--dry-run")
    assert ended.status == 0
    assert f" -P -m paddock.runner up {person.pipelines}\n" in ended.out
    assert f"\nWorkingDirectory={person.pipelines}\n" in ended.out
    assert person.written() == {}


@pytest.mark.parametrize(("typed", "status"), [("n\n", 2), ("\n", 2), (CTRL_C, 130)],
                         ids=["no", "default", "Ctrl-C"])  # fmt: skip
def test_a_person_who_does_not_agree_has_nothing_changed(
    person: Person, typed: str, status: int
) -> None:
    with terminal("setup", "pipelines", environ=person.environ, cwd=person.home) as screen:
        screen.wait_for("Do this? [y/N]: ")
        screen.rest()
        screen.type(typed)
        assert screen.ended(120) == status
    assert person.written() == {}


def test_a_second_run_changes_nothing_and_says_so(person: Person) -> None:
    assert person.setup("pipelines", "--keys", "--yes").status == 0
    before = person.written()
    again = person.setup("pipelines", "--yes")
    assert (again.status, again.out) == (0, "There is nothing to do.\n")
    assert person.written() == before


def test_permissions_and_the_address_stay_and_what_they_do_not_cover_is_said(
    person: Person,
) -> None:
    file = person.pipelines / "build.yaml"
    file.write_text(
        "on: {schedule: {cron: '0 6 * * *'}}\nsteps: [{uses: run, with: {command: [date]}}]\n"
    )
    first = person.setup("pipelines", "--yes", PADDOCK_UP_HOST="127.0.0.1:4711")
    assert "the pipeline wants to run `date" in first.out and "needs 'run'" in first.out
    again = person.setup("pipelines", "--yes", PADDOCK_ALLOW="run")
    assert "wants to" not in again.out
    before = person.unit.read_text()
    lines = ("Environment=PADDOCK_ALLOW=run\n", "Environment=PADDOCK_UP_HOST=127.0.0.1:4711\n")
    assert all(line in before for line in lines)
    assert person.setup("pipelines", "--yes").status == 0
    assert person.unit.read_text() == before, "without the variables, too"


def test_without_systemd_it_says_what_to_run_where_it_is(person: Person) -> None:
    ended = person.setup("pipelines", "--yes")
    assert ended.out.endswith(
        "No systemd answers here, so nothing is started. Where one does:\n"
        "  systemctl --user daemon-reload && systemctl --user enable paddock-up.service && "
        "systemctl --user restart paddock-up.service\n"
    )
    assert person.calls() == []


def test_a_system_without_systemd_is_refused(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    ended = person.setup("pipelines", "--yes")
    assert ended.status == 2
    assert ended.err.startswith("`paddock setup` writes units of systemd, which this system ")
    assert person.written() == {}


# systemctl


def test_the_unit_is_started_and_undo_ends_it_before_the_file_goes(person: Person) -> None:
    person.systemd_is("degraded")
    assert person.setup("pipelines", "--yes").status == 0
    started = ["daemon-reload", "enable paddock-up.service", "restart paddock-up.service"]
    assert person.calls() == [f"--user {words}" for words in started]
    assert person.setup("pipelines", "--yes").out == "There is nothing to do.\n"
    assert person.setup("--undo", "--yes").status == 0
    assert person.calls()[3:] == ["--user disable --now paddock-up.service", "--user daemon-reload"]
    assert person.written() == {}


def test_a_unit_that_does_not_start_is_reported_and_tried_again(person: Person) -> None:
    person.systemd_is("running")
    refusal = person.program.with_name("systemctl.refusal")
    refusal.write_text("Job for paddock-up.service failed.")
    ended = person.setup("pipelines", "--yes")
    assert (ended.status, ended.err) == (
        1,
        "`systemctl --user restart paddock-up.service` failed: Job for paddock-up.service failed.\n"
        "  Correct that and try again, or `--undo` what was written.\n",
    )
    refusal.unlink()
    assert person.setup("pipelines", "--yes").status == 0
    assert person.calls()[-1] == "--user restart paddock-up.service"


@pytest.mark.parametrize(
    ("state", "status", "first"), [("", 1, ""), ("unknown", 1, ""), ("offline", 0, "Done.\n")]
)
def test_undo_without_an_answer_of_systemd_says_what_is_left_to_run(
    person: Person, state: str, status: int, first: str
) -> None:
    assert person.setup("pipelines", "--keys", "--yes").status == 0
    link = person.unit.parent / "default.target.wants" / UNIT_NAME
    link.parent.mkdir()
    link.symlink_to(person.unit)
    person.systemd_is(state)
    ended = person.setup("--undo", "--yes")
    assert (ended.status, ended.out) == (
        status,
        f"remove {person.unit}: {WHAT}\nremove {person.keys}: {WHAT}\n"
        f"remove {link}: the link that enabling made\n{first}"
        "No systemd answers here, so a service that runs was not stopped. Where one does:\n"
        "  systemctl --user stop paddock-up.service && systemctl --user daemon-reload\n",
    )
    assert not link.is_symlink()
    assert (person.calls(), person.written()) == ([], {})


# Files that are there already


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_that_exist_keep_their_modes_and_new_ones_are_private(person: Person) -> None:
    shared, new = person.home / "shared", person.home / "shared/new"
    shared.mkdir()
    shared.chmod(0o755)
    for keys in (shared / "keys", new / "keys"):
        words = ("pipelines", "--keys", "--yes")
        assert person.setup(*words, PADDOCK_API_KEYS=str(keys)).status == 0
        assert mode(keys) == 0o600
    assert (mode(shared), mode(new)) == (0o755, 0o700)


def test_settings_in_a_folder_of_links_stay_there_and_only_the_file_is_narrowed(
    person: Person,
) -> None:
    dotfiles = person.home / "dotfiles"
    for folder in (dotfiles, person.settings_file.parent):
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    theirs = dotfiles / "paddock.toml"
    theirs.write_text('keep_alive = "1h"\n')
    theirs.chmod(0o644)
    person.settings_file.symlink_to(theirs)
    with mail_server() as (_, url):
        words = ("pipelines", "--mail", "ops@example.org", "--yes")
        assert person.setup(*words, PADDOCK_SMTP=url).status == 0
    assert (mode(dotfiles), mode(person.settings_file.parent), mode(theirs)) == (
        0o755, 0o755, 0o600,
    )  # fmt: skip
    theirs.chmod(0o640)
    assert person.setup("--undo", "--yes").status == 0
    assert (person.settings_file.is_symlink(), mode(theirs)) == (True, 0o640)
    assert theirs.read_text() == 'keep_alive = "1h"\n'


def test_a_fault_gives_back_the_mode_of_a_file_that_was_written_before_it(person: Person) -> None:
    person.settings_file.parent.mkdir(parents=True)
    person.settings_file.write_text('keep_alive = "1h"\n')
    person.settings_file.chmod(0o644)
    (person.home / ".config/systemd").symlink_to("not-mounted")  # found when the unit is written
    with mail_server() as (_, url):
        words = ("pipelines", "--keys", "--mail", "ops@example.org", "--yes")
        assert person.setup(*words, PADDOCK_SMTP=url).status == 1
    assert person.keys.parent.is_dir()
    assert person.written() == {".config/paddock/paddock.toml": 'keep_alive = "1h"\n'}
    assert mode(person.settings_file) == 0o644


def test_a_link_in_the_unit_s_place_is_left_even_if_it_leads_nowhere(person: Person) -> None:
    person.unit.parent.mkdir(parents=True)
    person.unit.symlink_to(person.home / "not-mounted/paddock-up.service")
    ended = person.setup("pipelines", "--yes")
    assert (ended.status, ended.err) == (
        2, f"{person.unit} is not from `paddock setup`.\n  Move it away, and try again.\n",
    )  # fmt: skip
    assert person.setup("--undo", "--yes").out == "There is nothing to do.\n"
    assert person.unit.is_symlink()


def test_a_unit_of_another_hand_is_left_and_nothing_else_is_written(person: Person) -> None:
    person.unit.parent.mkdir(parents=True)
    person.unit.write_text("[Service]\nExecStart=/bin/true\n")
    ended = person.setup("pipelines", "--keys", "--yes")
    assert (ended.status, ended.err) == (
        2, f"{person.unit} is not from `paddock setup`.\n  Move it away, and try again.\n",
    )  # fmt: skip
    assert list(person.written().values()) == ["[Service]\nExecStart=/bin/true\n"]
    assert person.setup("--undo", "--yes").out == "There is nothing to do.\n"


@pytest.mark.parametrize("edit", ["WatchdogSec=120", "# End of `paddock setup`."])
def test_a_unit_that_was_edited_is_neither_replaced_nor_removed(person: Person, edit: str) -> None:
    assert person.setup("pipelines", "--keys", "--yes").status == 0
    edited = person.unit.read_text().replace(edit, f"{edit}\nNice=5")
    person.unit.write_text(edited)
    again = person.setup("pipelines", "--yes")
    assert again.status == 2
    assert again.err.startswith(f"{person.unit} was edited since `paddock setup` wrote it.\n")
    undone = person.setup("--undo", "--yes")
    assert undone.out.splitlines() == [
        f"leave {person.unit}: it was edited since `paddock setup` wrote it",
        f"leave {person.keys}: the unit that stays reads it",
    ]
    assert read_keys(person.keys)
    assert person.unit.read_text() == edited
    person.unit.write_text(edited.replace("Environment=PADDOCK_API_KEYS", "# "))
    assert person.setup("--undo", "--yes").out.endswith(f"remove {person.keys}: {WHAT}\nDone.\n")


def test_undo_keeps_settings_and_keys_of_a_persons_own_hand(person: Person) -> None:
    person.settings_file.parent.mkdir(parents=True)
    person.settings_file.write_text('keep_alive = "1h"\n')
    with mail_server() as (_, url):
        words = ("pipelines", "--keys", "--mail", "ops@example.org", "--yes")
        assert person.setup(*words, PADDOCK_SMTP=url).status == 0
    with person.keys.open("a") as file:
        file.write("of-alice alice\n")
    assert person.setup("--undo", "--yes").status == 0
    assert person.written() == {
        ".config/paddock/paddock.toml": 'keep_alive = "1h"\n',
        ".paddock/api-keys": "of-alice alice\n",
    }


def test_missing_rights_are_named_before_anything_is_done(person: Person) -> None:
    (person.home / ".config").mkdir()
    (person.home / ".config").chmod(0o500)
    try:
        with without_roots_privilege():
            ended = person.setup("pipelines", "--keys", "--yes")
    finally:
        (person.home / ".config").chmod(0o700)
    assert (ended.status, ended.err) == (
        2, f"{person.unit}: Permission denied.\n  Make it writable for you.\n",
    )  # fmt: skip
    assert person.written() == {}


# Mail and keys


def test_the_test_mail_arrives_and_later_runs_know_the_server(person: Person) -> None:
    words = ("pipelines", "--mail", "ops@example.org", "--yes")
    with mail_server() as (box, url):
        given = {"PADDOCK_SMTP": url, "PADDOCK_MAIL_FROM": "paddock@example.org"}
        first = person.setup(*words, **given)
        before = person.written()
        second = person.setup(*words)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert [mail.rcpt_tos for mail in box.mails] == [["ops@example.org"]] * 2
    assert {mail.mail_from for mail in box.mails} == {"paddock@example.org"}
    assert b"`paddock setup` sent this on " in box.mails[0].content
    assert person.written() == before
    assert stat.S_IMODE(person.settings_file.stat().st_mode) == 0o600
    unattended = read_settings(environ={}, home=person.home).unattended
    assert (unattended.smtp_url, unattended.mail_from) == (url, "paddock@example.org")


def test_a_server_that_refuses_leaves_everything_as_it_was(person: Person) -> None:
    with mail_server("550 no such user") as (_, url):
        ended = person.setup("pipelines", "--mail", "ops@example.org", "--yes", PADDOCK_SMTP=url)
    assert (ended.status, ended.err) == (
        1,
        "The test mail was not delivered: 127.0.0.1 answered 550 no such user.\n"
        "  Nothing was changed.\n",
    )
    assert person.written() == {}


def test_no_password_is_shown(person: Person) -> None:
    with mail_server() as (_, url):
        secret = url.replace("//", "//me:hush%22hush@")
        words = ("pipelines", "--mail", "ops@example.org")
        outputs = [
            person.setup(*words, *flags, PADDOCK_SMTP=secret)
            for flags in (["--dry-run"], ["--yes"])
        ]
    assert [ended.status for ended in outputs] == [0, 1]
    assert "hush" not in "".join(ended.out + ended.err for ended in outputs)
    assert person.written() == {}


def test_a_person_is_asked_for_the_server_which_is_not_shown_and_agrees(person: Person) -> None:
    words = ("setup", "pipelines", "--mail", "ops@example.org")
    with (
        mail_server() as (box, url),
        terminal(*words, environ=person.environ, cwd=person.home) as screen,
    ):
        screen.wait_for("(not shown): ")
        screen.rest()
        screen.type(f"{url}?hush\n")
        screen.wait_for("Do this? [y/N]: ")
        screen.type("y\n")
        assert screen.ended(120) == 0
    assert len(box.mails) == 1
    assert "hush" not in screen.text
    assert "hush" in person.settings_file.read_text()
    assert block_state(person.unit.read_text()) == "intact"


@pytest.mark.parametrize(
    ("theirs", "smtp", "words"),
    [
        ("", "", "Mail: no mail server is set; set PADDOCK_SMTP, such as "),
        ("", "http://example.org", "Mail: the setting `smtp` must be smtp://"),
        ('smtp = "smtp://a.example"\n', "smtp://b.example", "paddock.toml sets another 'smtp' "),
    ],
)
def test_a_mail_server_that_cannot_be_set_is_refused(
    person: Person, theirs: str, smtp: str, words: str
) -> None:
    if theirs:
        person.settings_file.parent.mkdir(parents=True)
        person.settings_file.write_text(theirs)
    ended = person.setup("--mail", "ops@example.org", "--yes", PADDOCK_SMTP=smtp)
    assert ended.status == 2
    assert words in ended.err
    assert not person.unit.exists()


def test_a_key_is_made_once_and_never_shown(person: Person) -> None:
    first = person.setup("pipelines", "--keys", "--yes")
    made = person.keys.read_text()
    (key,) = read_keys(person.keys)
    second = person.setup("pipelines", "--keys", "--yes")
    assert (first.status, second.out, key.name) == (0, "There is nothing to do.\n", "setup")
    assert person.keys.read_text() == made
    assert stat.S_IMODE(person.keys.stat().st_mode) == 0o600
    assert made.splitlines()[1].split()[0] not in first.out + first.err
    assert f"Environment=PADDOCK_API_KEYS={person.keys}\n" in person.unit.read_text()


@pytest.mark.parametrize("text", ["", "\n# none yet\n"])
def test_a_file_without_a_key_has_one_made_into_it(person: Person, text: str) -> None:
    person.keys.parent.mkdir()
    person.keys.write_text(text)
    assert person.setup("pipelines", "--keys", "--yes").status == 0
    assert [key.name for key in read_keys(person.keys)] == ["setup"]
    assert person.keys.read_text().endswith(text)


@pytest.mark.parametrize("name", ["keys", 'my %i "keys"'])
def test_undo_finds_the_keys_that_the_unit_names(person: Person, name: str) -> None:
    keys = person.home / "elsewhere" / name
    given = {"PADDOCK_API_KEYS": str(keys)}
    assert person.setup("pipelines", "--keys", "--yes", **given).status == 0
    assert read_keys(keys)
    assert person.setup("--undo", "--yes").status == 0
    assert person.written() == {}


# The system's unit


@pytest.fixture
def system(person: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """A person who may write the system's files, which are elsewhere here."""
    monkeypatch.setattr(setup_plan, "SYSTEM_CONFIG", person.home / "etc/paddock")
    monkeypatch.setattr(setup_plan, "_SYSTEM_UNITS", person.home / "etc/systemd/system")
    return person


def test_the_system_s_unit_has_a_user_a_credential_and_an_environment_file(system: Person) -> None:
    config = system.home / "etc/paddock"
    config.mkdir(parents=True)
    (config / "environment").write_text("PADDOCK_STOP_TIMEOUT=90\n")
    with mail_server() as (box, url):
        words = ("pipelines", "--system", "--user", "nobody", "--keys", "--mail", "a@b.example")
        ended = system.setup(*words, "--yes", PADDOCK_SMTP=url)
        assert ended.status == 0, ended.err
        before = system.written()
        assert system.setup(*words, "--yes").status == 0  # with the server of the file
    assert len(box.mails) == 2
    assert system.written() == before
    unit = before["etc/systemd/system/paddock-up.service"].splitlines()
    assert {"User=nobody", f"LoadCredential=keys:{config}/keys", "TimeoutStopSec=120"} < {*unit}
    assert {f"ReadWritePaths={system.pipelines}", "WantedBy=multi-user.target"} < {*unit}
    assert f'\nPADDOCK_SMTP="{url}"\n' in before["etc/paddock/environment"]
    assert system.setup("--system", "--undo", "--yes").status == 0
    assert system.written() == {"etc/paddock/environment": "PADDOCK_STOP_TIMEOUT=90\n"}


def test_undo_leaves_what_an_edited_unit_of_the_system_reads(system: Person) -> None:
    config, unit = system.home / "etc/paddock", system.home / "etc/systemd/system" / UNIT_NAME
    with mail_server() as (_, url):
        words = ("pipelines", "--system", "--user", "nobody", "--keys", "--mail", "a@b.example")
        assert system.setup(*words, "--yes", PADDOCK_SMTP=url).status == 0
    unit.write_text(unit.read_text().replace("User=nobody", "User=daemon"))
    before = system.written()
    ended = system.setup("--system", "--undo", "--yes")
    assert (ended.status, ended.out.splitlines()) == (
        0,
        [
            f"leave {unit}: it was edited since `paddock setup` wrote it",
            f"leave {config}/environment: the unit that stays reads it",
            f"leave {config}/keys: the unit that stays reads it",
        ],
    )
    assert system.written() == before


def guide() -> str:
    return (Path(__file__).parents[4] / "examples/deploy" / UNIT_NAME).read_text("utf-8")


def test_the_system_s_unit_is_that_of_the_guide_for_other_folders() -> None:
    unit = UpUnit(("/opt/paddock/bin/paddock", "up"), (Path("/srv/pipelines"),), "paddock")
    guide_lines = [line for line in guide().splitlines() if line and line[0] != "#"]
    guide_lines.remove("Group=paddock")  # a user's own
    written = [line for line in unit.text(guide()).splitlines() if line]
    assert [line for line in written if line != "WorkingDirectory=/srv/pipelines"] == guide_lines


@pytest.mark.parametrize(
    ("folder", "lines"),
    [
        ("/home/ann/pipelines", {"ProtectHome=read-only", "PrivateTmp=yes"}),
        ("/var/tmp/pipelines", {"ProtectHome=yes", "PrivateTmp=no"}),
    ],
)
def test_no_safeguard_hides_the_folder_that_is_served(folder: str, lines: set[str]) -> None:
    unit = UpUnit(("/opt/paddock/bin/paddock", "up"), (Path(folder),), "paddock")
    assert lines < set(unit.text(guide()).splitlines())


def test_a_user_that_does_not_exist_is_refused_with_the_command_that_makes_it(
    system: Person,
) -> None:
    ended = system.setup("pipelines", "--system", "--user", "no-such-user", "--yes")
    assert (ended.status, ended.err) == (
        2,
        "There is no user 'no-such-user'. Name another by `--user`, or make this one:\n"
        "  useradd --system --home-dir /var/lib/paddock --shell /usr/sbin/nologin no-such-user\n",
    )
    assert system.setup("pipelines", "--user", "nobody", "--yes").status == 2
    assert system.written() == {}


# systemd itself


ODD = ("a b", "100 %i", "$HOME ${x}", 'it\'s "new"', "back\\slash\\n", "ünï;cøde", "-x +y")


def verified(unit: Path) -> tuple[int, list[str]]:
    """Return what systemd's own tool says about a unit: its status, and lines that name us."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("NOT TRIED: systemd-analyze is missing (Debian: apt-get install systemd)")
    ended = subprocess.run(
        [verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    return ended.returncode, [line for line in ended.stderr.splitlines() if "paddock" in line]


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_systemd_finds_no_fault_in_a_unit_of_an_odd_folder(person: Person, name: str) -> None:
    folder = person.home / name
    folder.mkdir()
    state = str(person.home / f"state {name}")
    assert person.setup(str(folder), "--keys", "--yes", PADDOCK_HOME=state).status == 0
    assert verified(person.unit) == (0, [])
    lines = person.unit.read_text().splitlines()
    assert f"WorkingDirectory={str(folder).replace('%', '%%')}" in lines  # read without unquoting


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_systemd_reads_the_program_s_path_as_it_is_named(tmp_path: Path, name: str) -> None:
    program = tmp_path / name / "missing"
    file, unit = tmp_path / UNIT_NAME, UpUnit((str(program), "up"), (tmp_path,))
    file.write_text(unit.text(guide()))
    status, lines = verified(file)
    assert status != 0
    is_named = any(f"Command {program} is not executable" in line for line in lines)
    if "$" in name:  # known here, lost in the name that the program is given
        assert unit.unwritable() == str(program)
    else:
        assert (unit.unwritable() is None) == is_named, lines


@pytest.mark.parametrize(
    "name",
    ["line\nfeed", "space ", "back\\", os.fsdecode(b"latin-\xe9")],
    ids=["newline", "space", "backslash", "not UTF-8"],
)
def test_a_folder_that_no_unit_can_name_is_refused(person: Person, name: str) -> None:
    (person.home / name).mkdir()
    ended = person.setup(str(person.home / name), "--yes")
    assert ended.status == 2
    assert "cannot be written in a unit of systemd.\n  Rename it: " in ended.err
    assert person.written() == {}
