"""Install Paddock from wheels where no compiler can be found, and run it: init, run, test, doctor.

    python .github/wheels/tryout.py dist              # what is missing there comes from the index
    python .github/wheels/tryout.py dist --extra cuda

Prints what each step took. Ends with the status of the first command that fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What compiles; none of it may be found, or the trial proves nothing.
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cl", "cmake", "ninja", "make", "nvcc")
# So that the example is a matter of seconds.
KEPT = ("letters/reference.md", "notes/bees.md")


def main() -> None:
    """Try the wheels of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--extra", default="", help="of paddock-llama, as in: vulkan")
    parser.add_argument("--folder", type=Path, help="is kept; a temporary one is not")
    parser.add_argument("--all", action="store_true", help="every document of the example")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    try:
        Trial(folder.resolve()).all(args.dist.resolve(), args.extra, is_whole=args.all)
    finally:
        if not args.folder:
            shutil.rmtree(folder, ignore_errors=True)


class Trial:
    """An environment of its own, and commands in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        kept = ("SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "HOME", "SSL_CERT_FILE")
        pip = [name for name in os.environ if name.startswith(("PIP_", "UV_"))]
        self._environ = {name: os.environ[name] for name in (*kept, *pip) if name in os.environ}
        self._environ |= {
            "PATH": str(self._bin), "PADDOCK_HOME": str(folder / "home"), "PYTHONUTF8": "1",
        }  # fmt: skip

    def all(self, dist: Path, extra: str, *, is_whole: bool) -> None:
        """Install, then use."""
        subprocess.run([sys.executable, "-m", "venv", str(self._folder / "venv")], check=True)
        found = [name for name in COMPILERS if shutil.which(name, path=str(self._bin))]
        assert not found, f"the trial proves nothing: {found} can be found"
        llama = f"paddock-llama[{extra}]" if extra else "paddock-llama"
        self._call(
            "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--find-links", str(dist), "paddock-llm[demo]", llama,
        )  # fmt: skip
        self._call("paddock", "doctor")
        self._call("paddock", "init", "folder-digest", "digest")
        inbox = self._folder / "digest" / "inbox"
        for path in [] if is_whole else [path for path in inbox.rglob("*") if path.is_file()]:
            if path.relative_to(inbox).as_posix() not in KEPT:
                path.unlink()
        self._call("paddock", "run", "--local", "digest/pipeline.yaml")
        self._call("paddock", "init", "ci-batch", "batch")
        self._call("paddock", "test", "batch/pipeline.yaml", "--replay")

    def _call(self, program: str, *arguments: str) -> None:
        """Run a command of the environment; ends everything where it fails."""
        shown = " ".join((program, *arguments))
        print(f"$ {shown}", flush=True)
        began = time.monotonic()
        command = [shutil.which(program, path=str(self._bin)) or program, *arguments]
        done = subprocess.run(command, cwd=self._folder, env=self._environ, check=False)
        print(f"# {time.monotonic() - began:.1f} s, status {done.returncode}", flush=True)
        if done.returncode:
            raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
