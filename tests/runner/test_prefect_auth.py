"""The password of our own Prefect server: made once, its owner's alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.runner.daemon.prefect_auth import own_auth_string, password_file, stored_secret
from tests.waiting import PATIENCE_S

ASK = """
import sys
from pathlib import Path
from paddock.runner.daemon.prefect_auth import own_auth_string
print(own_auth_string(Path(sys.argv[1])))
"""


def test_processes_that_ask_at_the_same_time_get_one_password(tmp_path: Path) -> None:
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK, tmp_path], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    found = {process.communicate(timeout=PATIENCE_S)[0].strip() for process in asking}
    assert found == {own_auth_string(tmp_path)}
    assert found.pop().startswith("paddock:")
    file = password_file(tmp_path)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_under_any_umask_and_after_a_chmod_it_is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        first = stored_secret(tmp_path / "state/secret")
    finally:
        os.umask(before)
    assert (tmp_path / "state/secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "state/secret").chmod(0o644)
    assert stored_secret(tmp_path / "state/secret") == first
    assert (tmp_path / "state/secret").stat().st_mode & 0o777 == 0o600


def test_a_link_and_a_file_that_is_empty_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("known")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        stored_secret(tmp_path / "link")
    (tmp_path / "empty").touch()
    with pytest.raises(OSError, match="the file is empty; remove it, then a new one is made"):
        stored_secret(tmp_path / "empty")


@pytest.mark.skipif(os.getuid() != 0, reason="NOT tried: only root can make another user's file")
def test_a_file_of_another_user_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("known")
    os.chown(tmp_path / "theirs", 54321, 54321)
    with pytest.raises(PermissionError, match="the file belongs to another user"):
        stored_secret(tmp_path / "theirs")
