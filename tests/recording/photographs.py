"""Photograph pages for README and guide, as Chromium shows them.

    python tests/recording/photographs.py review console    # next to this file, as they have them
    python tests/recording/photographs.py models --to /tmp/x    # light and dark, wide and narrow

`review` and `console`: what waits after `examples/first-run`, and that run. `compare`: two
prompts of `examples/choose-a-model`. `models`: the console's page of a busy service, for which four
readers ask for stories, and one embeds. `prefect`: the first run on Prefect's own page. `office`:
the folders and tables of `examples/office` before and after its run. Runs, models and service are
real.
"""

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from jinja2 import Environment
from openpyxl import load_workbook  # type: ignore[import-untyped]
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.settings import PoolSettings
from paddock.runner.api import run
from paddock.runner.cli.pipeline_draft import with_mailbox
from paddock.runner.core.run_options import RunOptions
from paddock.runner.daemon.prefect_auth import own_auth_string
from paddock.runner.daemon.prefect_server import running_server
from tests.browser import Browser, Page, browser
from tests.fakes.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.live import CHAT, VECTORS, Live
from tests.prefect_server import seed
from tests.residence import Home, ended
from tests.runner.cli.live_console import TOKEN, console_service
from tests.runner.cli.test_web_console import go, links, opened, served, signed_in
from tests.runner.review.served_page import ServedPage
from tests.runner.world import ReviewedWorld

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PADDOCK = str(Path(sys.executable).with_name("paddock"))
FIRST_RUN_DOCUMENT = "tides.csv"
SYSTEM = "You are a storyteller who writes for children, in plain words and short sentences. " * 4
THINGS = ("ferry", "llama", "boiler", "lighthouse", "orchard", "violin", "glacier", "paddock")
READERS = 4
WATCHED_S = 125.0  # so long is looked on before the picture is taken

Size = tuple[int, int]
Shown = Iterator[tuple[str, Page, Mapping[str, Size]]]
"""A name, a page, and its sizes: the first is the one of README and guide."""


OFFICE: Mapping[str, tuple[Any, ...]] = {
    "bell.eml": ("Ida Fell", "letter"),
    "board.md": (None, "other"),
    "boatyard-118.pdf": ("Calder Boatyard", "2024-118", 1320.0, "2024-06-17"),
    "chandlery-0457.pdf": ("Harbour Chandlery", "HC-0457", 1234.5, "2024-05-03"),
    "fuel-309.png": ("Calder Fuel Dock", "F-309", 412.75, "2024-07-09"),
    "fuel-317.eml": ("Calder Fuel Dock", "F-317", 388.2, "2024-08-09"),
    "minutes.md": (None, "minutes"),
    "reference.txt": ("A. Marsh", "letter"),
    "rope.eml": ("Harbour Chandlery", "offer"),
}
"""What is decided: the sender, and the kind, or number, total and day of a bill. An e-invoice needs
no decision."""


def office_page(folder: Path, chromium: Browser) -> Shown:
    with dovecot() as server:
        yield from _office_page(folder, chromium, server)


def _office_page(folder: Path, chromium: Browser, server: Dovecot) -> Shown:
    work = folder / "office"
    shutil.copytree(EXAMPLES / "office", work, ignore=shutil.ignore_patterns(".paddock", "out"))
    subjects, keys = list[str](), dict[str, str]()
    for number, file in enumerate(sorted((work / "inbox").glob("*.eml")), 1):
        server.put(file.read_bytes())
        subjects.append(str(message_from_bytes(file.read_bytes())["Subject"]))
        keys[file.name] = f"{datetime.now(UTC):%Y-%m-%d}-{number}.eml"
        file.unlink()
    before = sorted(path.name for path in (work / "inbox").iterdir())
    text = with_mailbox((work / "pipeline.yaml").read_text("utf-8"))
    account = f"host: 127.0.0.1, port: {server.port}, user: {USER}"
    desk = ReviewedWorld(
        work, text.replace("host: imap.example.org, user: office@example.org", account)
    )
    os.environ |= {"MAIL_PASSWORD": PASSWORD, "SSL_CERT_FILE": str(server.certificate)}
    options = RunOptions(local=True, allow=frozenset(("network", "secrets")))
    run(desk.file, {"days_ago": 0}, options)  # they came today
    for file_name, (sender, *values) in OFFICE.items():  # one of each sender and layout
        name = keys.get(file_name, file_name)
        kind, *bill = ("invoice", *values) if values[1:] else (*values, *[None] * 3)
        number, total, due = bill
        known = {"number": number, "total": total, "due": due, "currency": total and "EUR"}
        desk.decide(name, "edit", {"kind": kind, "sender": sender, **known})
    run(desk.file, {"days_ago": 0}, options)
    with server.box() as box:
        done = (box.uid("SEARCH", "KEYWORD paddock")[1][0] or b"").decode().split()
    mails = {subject: str(n) in done for n, subject in enumerate(subjects, 1)}
    kinds = sorted((work / "filed").iterdir())
    letters = (work / "out" / "LETTERS.md").read_text("utf-8").split("**")[1:]
    shown = {
        "mails": mails,
        "before": before,
        "filed": {kind.name: sorted(path.name for path in kind.iterdir()) for kind in kinds},
        "left": sorted(path.name for path in (work / "inbox").glob("[!.]*")),
        "books": {name: table(work, name) for name in ("invoices", "suppliers")},
        "letters": zip(letters[::2], letters[1::2], strict=True),
    }
    template = Path(__file__).with_name("office.html.j2").read_text("utf-8")
    page = work / "office.html"
    page.write_text(Environment(autoescape=True).from_string(template).render(shown), "utf-8")
    yield "office-page", chromium.page(page.as_uri()), {"": (1400, 660)}


def table(work: Path, name: str) -> list[list[Any]]:
    """Return the cells of a workbook as it shows them."""
    sheet = load_workbook(work / "out" / f"{name}.xlsx").active
    rows = [[*row] for row in sheet.iter_rows(values_only=True)]
    for row in rows[1:]:
        for at, cell in enumerate(row):
            is_money = "0.00" in sheet.cell(2, at + 1).number_format
            row[at] = "" if cell is None else float(cell) if is_money else cell
            if isinstance(cell, datetime):
                row[at] = f"{cell:%Y-%m-%d}"
    return rows


def compare_page(folder: Path, chromium: Browser) -> Shown:
    work = folder / "choose-a-model"
    shutil.copytree(
        EXAMPLES / "choose-a-model", work, ignore=shutil.ignore_patterns(".paddock", "out")
    )
    varied = "label=prompts/plain.md,prompts/turns.messages.yaml"
    report = work / "compare.html"
    command = [PADDOCK, "compare", ".", "--prompt", varied, "--report", str(report)]
    subprocess.run(command, cwd=work, check=True)
    page = chromium.page(report.as_uri())
    page.ask("document.querySelector('details').open = true")
    yield "compare-page", page, {"": (1200, 1290), "narrow": (390, 1200)}


def first_run(folder: Path) -> ServedPage:
    left = shutil.ignore_patterns(".paddock", "out")
    shutil.copytree(EXAMPLES / "first-run", folder, ignore=left)
    run(folder / "pipeline.yaml", options=RunOptions(local=True))
    return ServedPage(folder)


def review_page(folder: Path, chromium: Browser) -> Shown:
    with first_run(folder / "first-run").served() as address:
        page = chromium.page(address)
        page.wait("document.querySelectorAll('.field').length")
        rows = "[...document.querySelectorAll('.row')]"
        page.ask(f"{rows}.find((one) => one.textContent.includes('{FIRST_RUN_DOCUMENT}')).click()")
        named = "document.getElementById('document-name').textContent"
        page.wait(f"{named} === '{FIRST_RUN_DOCUMENT}'")
        page.press("ArrowUp")
        page.wait("document.getElementById('text-parts').textContent")
        yield "review-page", page, {"": (1240, 560), "narrow": (390, 1080)}


def console_pages(folder: Path, chromium: Browser) -> Shown:
    work = folder / "first-run"
    first_run(work)
    with served(work) as address, signed_in(address) as client:
        (run_path,) = links(client, "/ui/runs", "/ui/runs/")
        item = next(one for one in links(client, run_path, "/item") if FIRST_RUN_DOCUMENT in one)
        page = opened(chromium, address)
        for name, path, heading in (
            ("run", run_path, "first-run"),
            ("item", item, FIRST_RUN_DOCUMENT),
        ):
            go(page, urljoin(address, path), heading)
            yield f"console-{name}", page, {"": (1180, 800), "narrow": (390, 1300)}


@contextmanager
def prefect_run(root: Path) -> Iterator[tuple[Home, str]]:
    """Run the first run as a flow on a server that the command starts; yield home and name."""
    work, home = root / "first-run", Home(root)
    shutil.copytree(EXAMPLES / "first-run", work, ignore=shutil.ignore_patterns(".paddock", "out"))
    seed(home.state_dir / "prefect")
    try:
        done = ended(home.started("run", "--json", "--prefect", str(work)), within_s=200.0)
        assert done.returncode == 0, done.stderr
        yield home, json.loads(done.stdout)["run"]
    finally:
        home.end()


def page_of_prefect(
    chromium: Browser, home: Home, run_name: str, last_step: str = "digest"
) -> Page:
    """Sign in and open the page of a run; wait until its last step is shown."""
    address = running_server(home.state_dir).removesuffix("/api")
    page = chromium.page(address)
    page.wait("!!document.querySelector('input[type=password]')")
    page.ask("document.querySelector('input[type=password]').focus()")
    page.type(own_auth_string(home.state_dir))
    page.press("Enter", text="\r")
    page.wait("location.pathname.endsWith('/dashboard')")
    flow_runs = home.api("flow_runs/filter", {"limit": 200})
    (shown,) = [one["id"] for one in flow_runs if one["name"] == run_name]
    page.open(f"{address}/v2/runs/flow-run/{shown}?tab=TaskRuns")
    page.wait(f"document.body.innerText.includes('{run_name}')")
    page.wait(f"document.body.innerText.includes('{last_step}')")
    return page


def prefect_page(folder: Path, chromium: Browser) -> Shown:
    with prefect_run(folder) as (home, run_name):
        page = page_of_prefect(chromium, home, run_name)
        page.ask("new Promise((done) => setTimeout(done, 4000))")  # its chart is drawn after it
        yield "prefect-page", page, {"": (1240, 860)}


def models_page(folder: Path, chromium: Browser) -> Shown:
    with console_service(folder, PoolSettings(num_parallel=8)) as live, traffic(live):
        page = chromium.page(f"{live.url}/ui/models")
        page.ask("document.getElementById('token').focus()")
        page.type(TOKEN)
        page.press("Enter", text="\r")
        time.sleep(WATCHED_S)
        yield "models-page", page, {"": (1180, 860), "narrow": (390, 1700)}


@contextmanager
def traffic(live: Live) -> Iterator[None]:
    """Ask by several clients until the block ends."""
    ends = threading.Event()

    def read(n: int) -> None:
        chance = random.Random(n)
        with live.client() as client:
            while not ends.is_set():
                turns = [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"A story of a {chance.choice(THINGS)}."},
                ]
                n_tokens = chance.randint(20, 120)
                body = {"model": CHAT, "messages": turns, "stream": True, "max_tokens": n_tokens,
                        "options": {"num_predict": n_tokens}}  # fmt: skip
                path = "/v1/chat/completions" if n % 2 else "/api/chat"
                with client.stream("POST", path, json=body) as answer:
                    for _ in answer.iter_raw():
                        if ends.is_set() or chance.random() < 0.0004:
                            break  # some leave before the end
                ends.wait(chance.uniform(0.1, 5))

    def embed() -> None:
        with live.client() as client:
            while not ends.is_set():
                texts = [f"The {thing} is older than it looks." for thing in THINGS]
                client.post("/api/embed", json={"model": VECTORS, "input": texts})
                ends.wait(7)

    def err() -> None:
        with live.client() as client:
            while not ends.wait(25):
                client.post("/api/chat", json={"model": "llama3.2:3b", "messages": []})

    threads = [threading.Thread(target=read, args=(n,)) for n in range(READERS)]
    threads += [threading.Thread(target=embed), threading.Thread(target=err)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


PAGES: Mapping[str, Callable[[Path, Browser], Shown]] = {
    "review": review_page, "console": console_pages, "compare": compare_page,
    "models": models_page, "office": office_page, "prefect": prefect_page,
}  # fmt: skip


def smaller(picture: bytes) -> bytes:
    """Return it with a palette of its own."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    reading = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reading.add_argument("pages", nargs="+", choices=PAGES)
    reading.add_argument("--to", type=Path, metavar="DIR", help="every look, into a folder")
    told = reading.parse_args()
    to = told.to or Path(__file__).parent
    to.mkdir(parents=True, exist_ok=True)
    for chosen in told.pages:
        with tempfile.TemporaryDirectory() as folder, browser() as chromium:
            for name, page, sizes in PAGES[chosen](Path(folder), chromium):
                for size_name, size in sizes.items() if told.to else [*sizes.items()][:1]:
                    for scheme in ("light", "dark") if told.to else ("light",):
                        page.prefer(scheme)
                        page.resize(*size)
                        time.sleep(1.5)  # until it is drawn again
                        look = "-".join(filter(None, (name, size_name, told.to and scheme)))
                        file = to / f"{look}.png"
                        file.write_bytes(smaller(page.photograph()))
                        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
