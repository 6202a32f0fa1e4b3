"""Install Paddock from wheels without a compiler, in an empty home, and do the first run.

    python .github/wheels/tryout.py dist              # what is missing there comes from the index
    python .github/wheels/tryout.py dist --extra cuda
    python .github/wheels/tryout.py https://…/        # from a release's page

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
# What the README shows of the first run.
FOUND = 'boatyard.pdf,2024-118,"1,320.00 EUR",17 June 2024'


def main() -> None:
    """Try the wheels of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dist", help="a folder of wheels, or the address of a page that lists them")
    parser.add_argument("--extra", default="", help="of paddock-llama, as in: vulkan")
    parser.add_argument("--folder", type=Path, help="is kept; a temporary one is not")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    try:
        place = args.dist if "://" in args.dist else str(Path(args.dist).resolve())
        Trial(folder.resolve()).all(place, args.extra)
    finally:
        if not args.folder:
            shutil.rmtree(folder, ignore_errors=True)


class Trial:
    """An environment of its own, and commands in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        kept = ("SYSTEMROOT", "TEMP", "TMP", "SSL_CERT_FILE")
        pip = [name for name in os.environ if name.startswith(("PIP_", "UV_"))]
        self._environ = {name: os.environ[name] for name in (*kept, *pip) if name in os.environ}
        self._environ |= {
            "PATH": str(self._bin), "PYTHONUTF8": "1",
            "HOME": str(folder / "home"), "USERPROFILE": str(folder / "home"),
        }  # fmt: skip
        (folder / "home").mkdir(parents=True, exist_ok=True)

    def all(self, dist: str, extra: str) -> None:
        """Install, then use."""
        subprocess.run([sys.executable, "-m", "venv", str(self._folder / "venv")], check=True)
        found = [name for name in COMPILERS if shutil.which(name, path=str(self._bin))]
        assert not found, f"the trial proves nothing: {found} can be found"
        llama = f"paddock-llama[{extra}]" if extra else "paddock-llama"
        self._call(
            "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--find-links", dist, "paddock-llm[demo]", llama,
        )  # fmt: skip
        self._call("paddock", "doctor")
        self._call("paddock", "init", "first-run")
        self._call("paddock", "run", "--local", "first-run")
        table = (self._folder / "first-run" / "out" / "invoices.csv").read_text("utf-8")
        assert FOUND in table, table
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
