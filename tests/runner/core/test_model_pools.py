"""Pipelines whose models are served elsewhere: by real llama-servers, and by services of ours."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import NoServer
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.system.records import replace
from paddock.runner.api import plan, run
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from tests.fakes.pool import FakePool
from tests.live import live_service
from tests.llama_server import KEY, MODEL, LlamaServer, llama_server
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import each_document, run_arguments, settings, states

FAR = """\
name: far
secrets: {gpu: {env: GPU_KEY}}
models:
  writer:
    ref: NAME
    pool: {url: URLS, key: "{{ secrets.gpu }}"}
""" + each_document("""\
      - id: sum
        uses: chat
        with: {model: writer, prompt: "Sum up: {{ steps.text.text }}", params: {max_tokens: 12}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
""")


class Killing(Observer):
    """Kills a server once so many items are done, in the middle of the others."""

    def __init__(self, server: LlamaServer, after: int) -> None:
        self.server = server
        self.after = after
        self.notes: list[str] = []

    def item(self, step: str, key: str, state: Any, detail: str | None) -> None:
        self.after -= key != "" and state == "done"
        if self.after == 0:
            self.server.kill()

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[LlamaServer, LlamaServer]]:
    with ExitStack() as stack:
        yield stack.enter_context(llama_server()), stack.enter_context(llama_server())


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", KEY)


def folder_of(tmp_path: Path, *urls: str, ref: str = MODEL, n: int = 4) -> Path:
    for i in range(n):
        write(tmp_path, f"Ferry {i} leaves the harbour at noon.", f"inbox/{i}.txt")
    write(tmp_path, FAR.replace("URLS", f"[{', '.join(urls)}]").replace("NAME", ref))
    return tmp_path


def write(folder: Path, text: str, name: str = "p.yaml") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def here_alone(folder: Path, *edits: tuple[str, str]) -> None:
    """Take the servers out of the pipeline."""
    text = (folder / "p.yaml").read_text().replace("    pool:", "    x-pool:")
    for old, new in edits:
        text = text.replace(old, new)
    write(folder, text)


def permitted(folder: Path) -> Settings:
    return replace(settings(folder), allow=frozenset(["secrets", "network"]))


def ran(folder: Path, own: Settings | None = None, **options: Any) -> Report:
    own = replace(own or settings(folder), allow=permitted(folder).allow)
    arguments = run_arguments(local=True, settings=own, **options)
    return run(folder / "p.yaml", options.pop("inputs", None), *arguments)


def test_one_of_two_servers_is_killed_in_the_middle_and_every_document_is_done_once(
    tmp_path: Path, two: tuple[LlamaServer, LlamaServer]
) -> None:
    folder = folder_of(tmp_path, two[0].url, two[1].url, n=10)
    observer = Killing(two[0], after=3)
    report = ran(folder, observer=observer)
    assert report.status == "completed"
    assert report.counts["new"] == report.calls == 10
    assert len(list((folder / "out").iterdir())) == 10
    (lost,) = [note for note in observer.notes if "ended at `max_tokens`" not in note]
    assert lost.startswith(
        (f"the connection to {two[0].url} broke (", f"{two[0].url} cannot be reached (")
    )
    assert lost.endswith("): the others go on.")
    # Known by what the model is: the same from the other server alone, under another address.
    again = folder_of(tmp_path, two[1].url.replace("127.0.0.1", "localhost") + "/v1", n=10)
    assert ran(again).counts["fresh"] == 10


def test_when_the_only_server_is_gone_the_run_stops_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    with llama_server() as server:
        folder = folder_of(tmp_path, server.url, n=8)
        report = ran(
            folder, replace(settings(folder), pool_wait_s=1), observer=Killing(server, after=2)
        )
    assert report.status == "failed"
    message = str(report.message)
    # What was under way loses its connection; what had not begun finds no server.
    lost, refused = "the connection", f"{server.url} cannot be reached"
    sentence = f"no server can be reached for model '{MODEL}': "
    assert message.startswith((sentence + lost, sentence + refused))
    assert message.endswith(
        ", waited 1 s. Start one, or correct the address; the same command goes on."
    )
    assert (report.counts["new"], report.counts.get("quarantined", 0)) == (report.calls, 0)
    with llama_server(int(server.url.rpartition(":")[2])) as server:
        again = ran(folder)
    assert (again.status, again.counts["fresh"]) == ("completed", report.calls)
    assert report.calls + again.calls == 8


def test_where_no_server_answers_the_run_does_not_begin(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:2")
    with pytest.raises(NoServer) as caught:
        ran(folder)
    assert str(caught.value).startswith(
        f"no server can be reached for model '{MODEL}': http://127.0.0.1:1 cannot be reached ("
    )


def test_two_services_of_ours_share_the_work_and_are_known_as_this_machine_is(
    tmp_path: Path,
) -> None:
    with live_service(tmp_path / "one") as first, live_service(tmp_path / "two") as two:
        folder = folder_of(tmp_path, first.url, two.url, ref="smollm2:135m", n=10)
        report = ran(folder)
        assert (report.status, report.calls) == ("completed", 10)
        decoded = [service.call(_decoded(service)) for service in (first, two)]
    assert all(decoded)
    here = ModelFinder(tmp_path / "no", tmp_path / "cache").find("smollm2:135m")
    here_alone(folder)
    assert states(plan(folder / "p.yaml", settings=permitted(folder))) == {}, here.name


async def _decoded(live: Any) -> int:
    return sum(model.n_decoded_tokens for model in live.service.pool.stats().resident)


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("gpu-1:8000", "'gpu-1:8000' is no address of a server."),
        ('"http://a:1", "http://me:pw@b:1"', "'http://me:pw@b:1' has a password in it."),
        ('"{{ inputs.nope }}"', "there is no input 'nope'."),
        ('"{{ secrets.gpu }}"', "a secret cannot be read here."),
    ],
)
def test_an_address_that_cannot_be_one_is_a_fault(tmp_path: Path, urls: str, expected: str) -> None:
    folder = folder_of(tmp_path, urls)
    fault = fault_of(lambda: ran(folder, pool=FakePool()))
    assert fault.message == expected
