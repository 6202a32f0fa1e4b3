"""How soon a run's first model call comes when the local service has the model already.

    python tests/benchmarks/second_run.py [--runs N]

Prints, for the first run (which starts the service and loads the model) and for later ones: when
the first model call was in the worker, and when the command had ended, in seconds from its start.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paddock.runner.daemon import daemon_client, daemon_files
from paddock.runner.settings import Settings, read_settings

PIPELINE = """\
name: second-run
models: {writer: {ref: "smollm2:135m", params: {max_tokens: 48}}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {model: writer, prompt: "Go on: {{ steps.text.text }}"}}
"""
LOOK_S = 0.05  # each look costs both sides some milliseconds
END_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    n_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="paddock-second-") as folder:
        root = Path(folder)
        environ = {
            **os.environ,
            "PADDOCK_HOME": str(root / "home"),
            "PADDOCK_PROFILE_S": "0",
            "PADDOCK_TUNE": "off",
        }
        environ.pop("CI", None)
        environ.pop("PREFECT_API_URL", None)
        settings = read_settings(root, environ=environ)
        try:
            rows = [_measured(root, settings, environ, number) for number in range(n_runs + 1)]
        finally:
            residence = daemon_files.find_daemon(settings)
            if residence is not None:
                daemon_client.ask_daemon(residence, "/stop", {})
    print("| run | first model call, s | ended, s |\n|---|---|---|")
    for number, (called_s, ended_s) in enumerate(rows):
        name = "first: service and model start" if number == 0 else f"later {number}"
        print(f"| {name} | {called_s:.2f} | {ended_s:.2f} |")
    later = [called_s for called_s, _ in rows[1:]]
    if later:
        print(f"| **median of the later ones** | **{statistics.median(later):.2f}** | |")


def _measured(
    root: Path, settings: Settings, environ: dict[str, str], number: int
) -> tuple[float, float]:
    """Run once on a document that is new; gives seconds to the first call and to the end."""
    (root / "pipeline.yaml").write_text(PIPELINE)
    (root / "inbox").mkdir(exist_ok=True)
    (root / "inbox" / f"{number}.txt").write_text(f"The ferry {number} leaves the harbour and")
    began, called_s = time.monotonic(), 0.0
    paddock = str(Path(sys.executable).with_name("paddock"))
    with subprocess.Popen([paddock, "run", str(root)], env=environ, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as run:  # fmt: skip
        while run.poll() is None and time.monotonic() - began < END_S:
            if not called_s and _is_asked(settings):
                called_s = time.monotonic() - began
            time.sleep(LOOK_S)
    return called_s, time.monotonic() - began


def _is_asked(settings: Settings) -> bool:
    residence = daemon_files.find_daemon(settings)
    if residence is None:
        return False
    models = daemon_client.ask_daemon(residence)["models"]
    return any(one["users"] for one in models)


if __name__ == "__main__":
    main()
