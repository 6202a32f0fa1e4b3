"""The review page in a real Chromium: by keyboard, in both colours, with hostile documents."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.progress.report import Report
from paddock.runner.review import page as review_page
from paddock.steps.readers import documents as documents_reader
from tests.browser import Browser, Page, needs_browser
from tests.fakes.clerk import Said, clerk, pipeline
from tests.fakes.papers import INVOICES
from tests.fakes.pdf import pdf
from tests.runner.core.test_rules_of_decisions import NEXT, PIPELINE, TO_PAY, TRUE, Desk, bill
from tests.runner.review.served_page import KINDS, TEXT, ServedPage, quote
from tests.runner.world import settings
from tests.waiting import PATIENCE_S, until

pytestmark = needs_browser

CHECKS = (
    Path(__file__).resolve().parents[1] / "cli/page_checks.js"
).read_text("utf-8")  # fmt: skip
SHOWN = "document.getElementById('document').getAttribute('aria-busy') === 'false'"
"""The open item's document is shown; until then it cannot be accepted."""
HOSTILE = """</pre><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">
"><svg onload=window.hacked=3> {{7*7}} \u202egnp.exe <mark>marked</mark> &lt;b&gt; javascript:hack()
"""


@pytest.fixture
def served_page(tmp_path: Path) -> ServedPage:
    return ServedPage(tmp_path)


def opened(chromium: Browser, address: str, **size: int) -> Page:
    page = chromium.page(address, **size)
    page.wait("document.querySelectorAll('.field, #queue-empty:not([hidden])').length")
    page.wait(SHOWN)
    return page


def enter(page: Page, *, is_ctrl: bool = False) -> None:
    event: dict[str, Any] = {
        "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
        "modifiers": 2 if is_ctrl else 0,
    }  # fmt: skip
    text = {} if is_ctrl else {"text": "\r"}
    page.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
    page.send("Input.dispatchKeyEvent", type="keyUp", **event)


def name(page: Page) -> str:
    return page.text("#document-name")


def wait_for_item(page: Page, item: str) -> None:
    named = json.dumps(item)
    page.wait(f"document.getElementById('document-name').textContent === {named}")
    page.wait("document.querySelectorAll('.field').length > 0")
    page.wait(SHOWN)


def states(served_page: ServedPage, *reviews: Any) -> list[str]:
    return [served_page.review(review.id).state for review in reviews]


def test_a_person_decides_everything_by_the_keyboard(
    served_page: ServedPage, chromium: Browser
) -> None:
    reviews = served_page.ask("a.txt", "b.txt", "c.txt", "d.txt")
    with served_page.served() as address:
        page = opened(chromium, address)
        assert page.ask("location.search") == ""
        assert page.ask("document.activeElement.id") == "queue"
        assert name(page) == "a.txt"
        assert page.text(".field[aria-selected=true] .name") == "pay_by"  # found nowhere
        page.press("ArrowUp")
        page.press("ArrowUp")
        page.wait("document.querySelector('mark.on')?.textContent === '84.50'")

        enter(page)
        wait_for_item(page, "b.txt")
        assert states(served_page, *reviews) == ["accepted", "open", "open", "open"]

        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-3'")
        doubt = "document.querySelector('#input-3 ~ .quote').hidden"
        assert not page.ask(doubt)
        page.type("soon")
        assert page.ask(doubt)  # it was of the value that was there
        page.wait("document.getElementById('wrong-3').textContent")
        assert page.text("#wrong-3") == "'soon' is not a 'date'. Write it as 2026-10-28."
        assert page.ask("document.activeElement.getAttribute('aria-invalid')") == "true"
        enter(page)  # refused, and the text stays
        page.wait("document.activeElement.id === 'input-3'")
        assert page.ask("document.getElementById('input-3').value") == "soon"
        page.press("Escape")
        page.wait("document.activeElement.id === 'queue'")
        page.press("j", text="j")
        wait_for_item(page, "c.txt")
        page.press("k", text="k")
        wait_for_item(page, "b.txt")
        page.press("e", text="e")
        page.wait("document.getElementById('input-3')?.value === 'soon'")  # still there
        page.ask("document.getElementById('input-3').select()")
        page.type("2026-01-31")
        page.wait("!document.getElementById('wrong-3').textContent")
        enter(page)
        wait_for_item(page, "c.txt")
        assert served_page.review(reviews[1].id).value["pay_by"] == "2026-01-31"

        page.press("x", text="x")
        page.wait("document.activeElement.id === 'reason'")
        enter(page, is_ctrl=True)
        page.wait("document.getElementById('reason-problem').textContent")
        page.type("It is a reminder, no invoice.")
        enter(page, is_ctrl=True)
        wait_for_item(page, "d.txt")
        assert served_page.review(reviews[2].id).reason == "It is a reminder, no invoice."
        assert states(served_page, *reviews) == ["accepted", "edited", "rejected", "open"]
        assert page.ask("document.getElementById('bar').getAttribute('aria-valuenow')") == "3"
        assert page.text("#left").startswith("3 decisions here, 1 left")

        page.press("u", text="u")
        wait_for_item(page, "c.txt")
        assert states(served_page, *reviews) == ["accepted", "edited", "open", "open"]
        assert page.text("#earlier") == ""

        page.press("?", text="?")
        page.wait("document.getElementById('help').open")
        assert "Accept the answer as it is" in page.text("#help")
        page.press("Escape")
        page.wait("!document.getElementById('help').open")
        enter(page)
        wait_for_item(page, "d.txt")
        enter(page)
        page.wait("!document.getElementById('queue-empty').hidden")
        assert page.text("#queue-empty").startswith("Nothing waits for review.")
        assert states(served_page, *reviews) == ["accepted", "edited", "accepted", "accepted"]
        assert page.complaints() == []
        base = address.partition("/review")[0]
        assert all(url.startswith((base, "data:", "blob:")) for url in page.asked_for())


def test_a_decision_says_what_it_answers_and_carries_the_sender_s_papers_along(
    tmp_path: Path, chromium: Browser
) -> None:
    desk = Desk(tmp_path)
    joiner = bill(**{**NEXT, "sender": "Larkfield Joinery"})
    for file, text in {"a": bill(), "b": bill(**NEXT), "c": joiner}.items():  # asked in this order
        desk.arrive(**{file: text})
        desk.work()
    with ServedPage(tmp_path).served() as address:
        page = opened(chromium, address)
        wait_for_item(page, "a.txt")
        page.press("e", text="e")
        for at, value in enumerate(TRUE.values()):
            how = json.dumps(str(value))
            page.ask(f"{{const i = document.getElementById('input-{at}'); i.focus(); "
                     f"i.value = {how}; i.dispatchEvent(new Event('input'))}}")  # fmt: skip
        page.ask("document.getElementById('input-2').focus()")
        page.ask("const n = document.createTreeWalker(document.getElementById('text-parts'), 4); "
                 "while (n.nextNode() && !n.currentNode.data.includes('RE-101')); "
                 "const t = n.currentNode; const at = t.data.indexOf('RE-101') + 2; "
                 "getSelection().collapse(t, at); t.parentElement.dispatchEvent("
                 "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
        page.wait("document.getElementById('input-2').value === 'RE-101'")  # by a click on it
        page.wait("!document.getElementById('answers').hidden")
        told = "1 waiting paper needs no decision any more then: b.txt."
        assert page.text("#answers") == told
        page.ask("document.getElementById('save').click()")
        wait_for_item(page, "c.txt")  # b.txt is passed over
        page.wait("document.getElementById('rows').textContent.includes('as you decided on a.txt')")
        assert page.text("#left").startswith("1 decision here, 1 left")
        assert page.text("#accept-all") == "Accept all 1"  # nor is b.txt accepted as proposed
        page.press("k", text="k")
        wait_for_item(page, "b.txt")
        page.wait("document.getElementById('notices').innerText.includes('decided on a.txt')")
        page.press("r", text="r")
        page.wait("document.getElementById('rules-dialog').open")
        shown = page.text("#rules")
        assert "Larkfield Print Works" in shown and "behind “total”" in shown
        page.press("Escape")
        page.wait("!document.getElementById('rules-dialog').open")
    desk.arrive(d=bill(TO_PAY, **NEXT))
    desk.work()
    assert {*desk.waiting()} == {"c.txt", "d.txt"}
    with ServedPage(tmp_path).served() as address:
        page = opened(chromium, address)
        wait_for_item(page, "c.txt")
        page.press("j", text="j")
        wait_for_item(page, "d.txt")
        assert page.text(".field .name") == "kind"  # what is open comes first
        told = "document.querySelector('.left.on p').textContent"
        assert page.ask(told).startswith("New on this paper: “")
        read = page.text("#fields")
        assert "read behind “number”, as you decided on" in read and "(a.txt)" in read
        desk.decide("c.txt", "edit", {**TRUE, "sender": "Joiner No. 1"})
        page.press("r", text="r")
        page.wait("document.getElementById('rules-dialog').open")
        assert "c.txt makes no rule: no decided name" in page.text("#rules")
        assert "Of 1 read without a question 0 were looked at, 0 wrong." in page.text("#rules")
        page.press("Escape")
        page.ask("document.querySelector('.reading button').click()")
        wait_for_item(page, "a.txt")  # it waits again
        assert page.complaints() == []


PAID = "You have already paid 30.00 EUR"


def readings(text: str, *more: list[Any]) -> dict[str, Any]:
    """Return readings of which the total is open for a sentence that is new."""
    at = text.index(PAID)
    left = [[PAID, at, at + len(PAID), "paid"], *more]
    return {"readings": {
        "number": {"by": "person"}, "kind": {"by": "person"}, "pay_by": {"by": "person"},
        "total": {"open": "left_over", "left": left},
    }}  # fmt: skip


def test_one_key_says_what_is_new_on_a_paper_and_another_accepts_what_was_read(
    served_page: ServedPage, chromium: Browser
) -> None:
    text = TEXT.replace("\n\n", f"\n\n{PAID}\n")
    plain: dict[str, Any] = {"evidence": None, "confidence": None, "open": ["total"]}
    more = ["Thank you", -1, -1, "thanks"], ["Rope", 80, 84, "rope"]
    reviews = served_page.ask("a.txt", text=text, outputs=readings(text), **plain)
    reviews += served_page.ask("b.txt", text=text, outputs=readings(text, *more), **plain)
    with served_page.served() as address:
        page = opened(chromium, address)
        page.wait(f"document.querySelector('mark.left.on')?.textContent === '{PAID}'")
        assert page.text(".left p") == f"New on this paper: “{PAID}”"
        assert page.text(".field[aria-selected=true] .name") == "total"
        assert not page.ask("document.querySelector('#notices details').open")
        page.press("n", text="n")
        page.wait("document.querySelector('.left p').textContent.endsWith('never matters here')")
        enter(page)  # two keys
        wait_for_item(page, "b.txt")
        found = served_page.review(reviews[0].id)
        assert (found.state, found.subject.marks) == ("accepted", {"paid": "never"})

        page.press("a", text="a")  # the first, which chooses the next
        page.wait("document.querySelector('.left.on p')?.textContent.startsWith('Missing: “Thank')")
        page.press("n", text="n")
        page.press("n", text="n")
        page.press("n", text="n")  # of the last one, which takes it back
        assert page.ask("page.marks") == {"paid": "always", "thanks": "never"}
        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-0'")
        page.type("54.50")
        enter(page)
        page.wait("!document.getElementById('queue-empty').hidden")
        found = served_page.review(reviews[1].id)
        assert (found.value["total"], found.subject.marks) == (
            54.5, {"paid": "always", "thanks": "never"}
        )  # fmt: skip

        page.press("u", text="u")  # what was decided is in the form, what was said is taken back
        wait_for_item(page, "b.txt")
        assert page.text(".field .value") == "84.5 54.5"
        assert page.ask("page.marks") == {}
        page.press("A", text="A")
        enter(page)
        page.wait("!document.getElementById('queue-empty').hidden")
        found = served_page.review(reviews[1].id)
        assert (found.state, found.value["total"]) == ("edited", 54.5)
        assert found.subject.marks == dict.fromkeys(("paid", "thanks", "rope"), "always")

        page.ask("document.getElementById('tab-decided').click()")
        wait_for_item(page, "b.txt")
        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-0'")
        assert page.ask("document.activeElement.value") == "54.5"
        page.type("55.50")
        enter(page)
        page.wait("document.querySelector('.field .value')?.textContent.includes('55.5')")
        now = served_page.review(reviews[1].id)
        assert (now.state, now.value["total"], len(now.earlier)) == ("edited", 55.5, 1)
        assert now.subject.marks == found.subject.marks
        page.press("u", text="u")
        page.wait("page.review?.state === 'open'")
        assert page.text(".field .value") == "84.5 55.5"
        assert page.complaints() == []


def test_a_label_is_added_where_the_question_stands_and_what_is_undone_is_seen(
    served_page: ServedPage, chromium: Browser
) -> None:
    table = served_page.folder / "kinds.csv"
    table.write_text("kind,note\ninvoice,\ncredit note,", "utf-8")
    (review, _) = served_page.ask("a.txt", "b.txt", label_tables=KINDS)
    chosen = "document.getElementById('input-2')?.value === '{}'"
    with served_page.served() as address:
        page = opened(chromium, address)
        rule = "document.querySelector('#notices code').textContent"
        assert page.ask(rule) == "confidence.min < 0.8"
        assert not page.ask("document.querySelector('#notices details').open")
        page.press("e", text="e")
        page.wait(chosen.format("invoice"))
        page.ask("document.querySelectorAll('#inputs .input')[2].querySelector('button').click()")
        page.wait("document.activeElement.name === 'kind'")
        page.type("Invoice")
        enter(page)
        page.wait("document.getElementById('row-problem').textContent")
        assert "differ by case or space only" in page.text("#row-problem")
        page.ask("document.activeElement.select()")
        page.type("reminder")
        enter(page)
        page.wait(chosen.format("reminder"))
        note = page.text("#row-note")
        assert note.startswith(
            "'reminder' is in kinds.csv. The next run knows it. 1 other document"
        )
        assert table.read_text("utf-8") == "kind,note\ninvoice,\ncredit note,\nreminder,\n"
        page.ask("document.getElementById('input-2').focus()")
        page.press("Escape")
        page.press("e", text="e")
        page.wait(chosen.format("reminder"))  # as all that was typed
        page.ask("document.getElementById('input-3').select()")
        page.type("2026-01-31")
        enter(page)
        wait_for_item(page, "b.txt")
        assert served_page.review(review.id).value["kind"] == "reminder"

        page.ask("document.getElementById('filter').focus()")
        page.type("b.txt")
        page.ask("document.getElementById('queue').focus()")
        page.press("u", text="u")
        wait_for_item(page, "a.txt")
        assert page.ask("document.getElementById('filter').value") == ""
        assert "a.txt" in page.text(".row[aria-selected=true]")
        (refused,) = page.complaints()
        assert "409" in refused  # of the row that was like another one


def test_a_key_that_is_held_decides_once(served_page: ServedPage, chromium: Browser) -> None:
    reviews = served_page.ask("a.txt", "b.txt", "c.txt")
    with served_page.served() as address:
        page = opened(chromium, address)
        enter_key: dict[str, Any] = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        page.send("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter_key)
        wait_for_item(page, "b.txt")
        for _ in range(5):
            page.send(
                "Input.dispatchKeyEvent", type="keyDown", text="\r", autoRepeat=True, **enter_key
            )
        page.send("Input.dispatchKeyEvent", type="keyUp", **enter_key)
        time.sleep(0.3)
    assert states(served_page, *reviews) == ["accepted", "open", "open"]


def test_documents_values_and_names_are_never_markup(
    served_page: ServedPage, chromium: Browser
) -> None:
    item = "<img src=x onerror='window.hacked=4'>\u202egnp.txt"
    schema = {"type": "object", "properties": {HOSTILE[:30]: {"type": "string"}}}
    confidence = {HOSTILE[:30]: {"p": 0.5, "second": HOSTILE, "is_calibrated": False}}
    served_page.ask(
        item,
        text=HOSTILE,
        answer={HOSTILE[:30]: HOSTILE},
        schema=schema,
        checks=[],
        evidence={HOSTILE[:30]: quote(HOSTILE, "<mark>marked</mark>")},
        confidence=confidence,
        when=f"'{HOSTILE[:20]}'",
        outputs={
            "readings": {HOSTILE[:30]: {"open": "left_over", "left": [[HOSTILE, -1, -1, HOSTILE]]}}
        },
    )
    with served_page.served() as address:
        page = opened(chromium, address)
        page.wait("document.querySelector('mark.on') !== null")
        assert page.ask("document.getElementById('text-parts').textContent") == HOSTILE
        assert page.text("mark.on") == "<mark>marked</mark>"
        plain = HOSTILE.replace("\u202e", "\\u202e")
        assert name(page) == item.replace("\u202e", "\\u202e")
        assert page.ask("document.querySelector('.field .value').textContent") == plain
        assert page.ask("document.querySelector('.left p').textContent") == f"Missing: “{plain}”"
        page.press("e", text="e")
        page.wait("document.getElementById('input-0')?.value")
        assert page.ask("document.getElementById('input-0').value") == HOSTILE
        page.press("Escape")
        page.press("x", text="x")
        page.wait("document.getElementById('reason-dialog').open")
        page.type(HOSTILE)
        enter(page, is_ctrl=True)
        page.wait("!document.getElementById('queue-empty').hidden")
        page.ask("document.getElementById('tab-decided').click()")
        page.wait("document.getElementById('notices').textContent.includes('Rejected by ann')")
        assert page.ask("document.querySelectorAll('main script, main svg, #text img').length") == 0
        assert page.ask("window.hacked === undefined")
        assert page.complaints() == []


@pytest.mark.parametrize("width", [1280, 340])
def test_it_is_readable_in_every_window_and_both_colours(
    served_page: ServedPage, chromium: Browser, width: int
) -> None:
    left = [[part, TEXT.index(part), TEXT.index(part) + len(part), part] for part in TEXT.split()]
    new = {
        "readings": {"total": {"open": "left_over", "left": [*left[:9], ["W" * 99, -1, -1, "w"]]}}
    }
    served_page.ask(
        "a-rather-long-name-of-an-invoice-that-someone-scanned-in-2026.txt", "b.txt", outputs=new
    )
    served_page.ask("a.txt", document_sha256="d9")
    with served_page.served() as address:
        page = opened(chromium, address, width=width, height=800)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            for act in ("e", "Escape", "?", "Escape"):
                page.press(act, text=act if len(act) == 1 else "")
                page.wait("true")
                assert page.ask(f"{CHECKS} outside()") == []
                assert page.ask(f"{CHECKS} pale()") == []
                assert page.ask("document.documentElement.scrollWidth <= innerWidth")
        assert page.complaints() == []
        if width < 900:  # one column, and the decisions stay in sight
            box = "document.getElementById('answer').getBoundingClientRect().width"
            assert page.ask(f"{box} > innerWidth * 0.9")
            seen = "document.getElementById('accept').getBoundingClientRect().bottom"
            assert page.ask(f"{seen} <= innerHeight")
        head = "document.querySelector('body > header')"
        assert page.ask(f"{head}.offsetHeight < innerHeight / 3")
        words = "[...document.querySelectorAll('nav.console a')]"
        assert page.ask(f"{words}.every((word) => word.offsetHeight < 40)")  # each in one line


def test_of_five_thousand_items_a_screenful_is_drawn(
    served_page: ServedPage, chromium: Browser
) -> None:
    items = [f"invoice-{n:04}.txt" for n in range(5000)]
    served_page.ask_many(items)
    with served_page.served() as address:
        page = opened(chromium, address)
        assert page.text("#n-waiting") == "5,000"
        assert page.ask("document.querySelectorAll('.row').length") < 60
        page.ask("document.getElementById('queue').scrollTop = 1e9")
        page.wait("[...document.querySelectorAll('.row b')].at(-1).textContent.includes('4999')")
        assert page.ask("document.querySelectorAll('.row').length") < 60
        page.ask("[...document.querySelectorAll('.row')].at(-1).click()")
        wait_for_item(page, items[-1])
        enter(page)
        wait_for_item(page, items[-2])
        assert page.text("#n-waiting") == "4,999"
        page.ask("document.getElementById('filter').focus()")
        page.type("-0042")
        page.wait("document.querySelectorAll('.row').length === 1")
        wait_for_item(page, "invoice-0042.txt")  # what is seen is what is decided
        page.ask("document.getElementById('queue').focus()")
        enter(page)
        page.wait("document.getElementById('queue-empty').textContent.startsWith('Nothing passes')")
        assert page.text("#queue-empty") == "Nothing passes the filter; 4,998 without it."
        assert page.text("#document-note") == page.text("#document-name") == ""


def test_two_people_see_what_the_other_does(served_page: ServedPage, chromium: Browser) -> None:
    first, second = served_page.ask("a.txt", "b.txt")
    with served_page.served("ann") as of_ann, served_page.served("ben", port=0) as of_ben:
        ann = opened(chromium, of_ann)
        ann.wait("document.getElementById('notices').textContent")
        until(lambda: served_page.review(first.id).lease_by == "ann")
        ben = opened(chromium, of_ben)
        wait_for_item(ben, "b.txt")  # ann looks at the first
        ben.press("k", text="k")
        wait_for_item(ben, "a.txt")
        ben.wait("document.getElementById('notices').textContent.includes('ann looks at')")
        assert "ann looks at this" in ben.text("#row-0")
        enter(ben)
        ben.wait("!document.getElementById('problem').hidden")
        assert ben.text("#problem").startswith("ann looks at 'a.txt' (step 'bill') until ")
        assert states(served_page, first, second) == ["open", "open"]

        ben.press("j", text="j")
        wait_for_item(ben, "b.txt")
        ann.press("j", text="j")
        wait_for_item(ann, "b.txt")
        ann.wait("document.getElementById('notices').textContent.includes('ben looks at')")
        enter(ben)
        ann.wait("document.getElementById('notices').textContent.includes('Accepted by ben')")
        assert ann.ask("document.getElementById('accept').disabled")
        enter(ann)
        ann.press("u", text="u")  # she has decided nothing that she could undo
        assert served_page.review(second.id).by == "ben"


def test_a_changed_question_is_said_and_what_was_typed_stays(
    served_page: ServedPage, chromium: Browser
) -> None:
    (review,) = served_page.ask("a.txt")
    with served_page.served() as address:
        page = opened(chromium, address)
        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-3'")
        page.type("2026-01-31")
        answer = {"number": "R-1042", "total": 99.0, "kind": "invoice", "pay_by": "2026-02-28"}
        served_page.ask("a.txt", document_sha256="d2", answer=answer)
        enter(page)
        told = "document.getElementById('{}').textContent.includes('{}')"
        refused, seen = (
            told.format("edit-problem", "was changed"),
            told.format("said", "is asked again"),
        )
        page.wait(f"{refused} || {seen}")  # by the decision, or by the list that came before it
        assert served_page.review(review.id).state == "open"
        assert page.ask("document.getElementById('input-1').value") == "99.0"
        assert page.ask("document.getElementById('input-3').value") == "2026-01-31"
        enter(page)
        page.wait("!document.getElementById('queue-empty').hidden")
    assert served_page.review(review.id).value == {**answer, "pay_by": "2026-01-31"}


def test_a_whole_answer_is_edited_as_json_without_rounding(
    served_page: ServedPage, chromium: Browser
) -> None:
    answer = {"n": 12345678901234567890, "items": [1]}
    (review,) = served_page.ask(
        "a.txt", answer=answer, schema={"type": "object"}, checks=[], evidence={}, confidence=None
    )
    with served_page.served() as address:
        page = opened(chromium, address)
        page.press("e", text="e")
        page.wait("!document.getElementById('edit').hidden")
        page.ask("document.getElementById('as-json').click()")
        page.wait("document.activeElement.id === 'json'")
        assert json.loads(page.ask("document.getElementById('json').value")) == answer
        page.ask("document.getElementById('json').select()")
        page.type('{"n": 12345678901234567890, "items": [1, 2')
        page.wait("document.getElementById('edit-problem').textContent.includes('no JSON')")
        page.ask("document.getElementById('json').select()")
        page.type('{"n": 12345678901234567890, "items": [1, 2]}')
        enter(page, is_ctrl=True)
        page.wait("!document.getElementById('queue-empty').hidden")
    assert served_page.review(review.id).value == {"n": 12345678901234567890, "items": [1, 2]}


def run_bills(folder: Path) -> Report:
    """Run the guide's pipeline on three bills, with a model that is not sure of them."""
    answers = {
        "2024-118": Said({"number": "2024-118", "total": 1320.0, "pay_by": "2024-06-17"},
                         {"total": (0.5, "1100.0")}),
        "S 88": Said({"number": "S 88", "total": 84.0, "pay_by": "2024-04-11"},
                     {"total": (0.5, "48.0")}),
        "T-5512": Said({"number": "T-5512", "total": 1.0, "pay_by": "2024-04-11"}),
    }  # fmt: skip
    (folder / "inbox").mkdir()
    for name_ in ("boatyard.pdf", "sailmaker.pdf", "tides.csv"):
        (folder / "inbox" / name_).write_bytes(INVOICES[name_])
    own = replace(settings(folder), allow=frozenset(["network"]))
    with clerk(answers) as model:
        (folder / "bills.yaml").write_text(pipeline(model.url))
        return run(
            folder / "bills.yaml", None, RunOptions(local=True), RunEnvironment(settings=own)
        )


def dark_share(page: Page) -> float:
    """Return the share of dark points of the picture within the box of the chosen field."""
    return float(
        page.ask("""(() => {
      const image = document.getElementById("image"), box = document.querySelector(".box.on");
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d"), part = (side) => parseFloat(box.style[side]) / 100;
      context.drawImage(image, 0, 0);
      const places = [part("left") * canvas.width, part("top") * canvas.height,
                      part("width") * canvas.width, part("height") * canvas.height];
      const { data } = context.getImageData(...places.map(Math.round));
      let dark = 0;
      for (let at = 0; at < data.length; at += 4) if (data[at] < 128) dark += 1;
      return dark / (data.length / 4);
    })()""")
    )


def test_the_page_shows_the_documents_picture_with_the_value_marked(
    tmp_path: Path, chromium: Browser
) -> None:
    assert run_bills(tmp_path).counts["waiting"] == 3
    served_page = ServedPage(tmp_path)
    with served_page.served() as address:
        page = opened(chromium, address, width=1280, height=800)
        marked = {"boatyard.pdf": "1,320.00", "sailmaker.pdf": "84.00"}
        for item in page.ask(
            "[...document.querySelectorAll('.row b')].map((node) => node.textContent)"
        ):
            wait_for_item(page, item)
            if item not in marked:  # a text has no picture
                page.wait("!document.getElementById('text').hidden")
                assert page.ask("document.getElementById('picture').hidden")
                enter(page)
                continue
            page.wait("document.getElementById('image').naturalWidth > 0")
            page.wait("document.querySelector('.box.on') !== null")
            assert marked[item] in page.text(".field[aria-selected=true] .quote")
            assert 0.05 < dark_share(page) < 0.7
            page.wait("boxed.length > 0")
            page.ask("page.review.is_text = true")  # a word is no new value of a whole text
            page.ask(f"({CLICK})(document.getElementById('picture'))")
            page.ask("page.review.is_text = false")
            page.ask(f"({CLICK})(document.querySelector('.box.on'))")
            assert page.ask("page.mode") == "read"  # and of a mark, it is looked at
            page.press("t", text="t")
            page.wait(f"document.querySelector('mark.on')?.textContent === '{marked[item]}'")
            page.press("t", text="t")
            page.wait("!document.getElementById('picture').hidden")
            enter(page)
        page.wait("!document.getElementById('queue-empty').hidden")
        assert page.complaints() == []


CLICK = """(node) => {
  const box = document.querySelector(".box.on").getBoundingClientRect();
  node.dispatchEvent(new MouseEvent("click", { bubbles: true,
    clientX: (box.left + box.right) / 2, clientY: (box.top + box.bottom) / 2 }));
}"""


def test_clicked_places_are_kept_with_what_is_typed_and_gone_with_it(
    served_page: ServedPage, chromium: Browser
) -> None:
    (served_page.folder / "kinds.csv").write_text("kind,note\ninvoice,\n", "utf-8")
    served_page.ask("a.txt", label_tables=KINDS)
    clicked = {"number": [25, 31], "total": [52, 57]}
    with served_page.served() as address:
        page = opened(chromium, address)
        page.ask("pick(0); fill('R-1042', [25, 31])")  # the value that it had
        page.press("Escape")
        page.wait("page.mode === 'read'")
        assert page.ask("draftOf(page.id).places") == {"number": clicked["number"]}
        page.ask("pick(1); fill('84.00', [52, 57])")
        for _ in "to JSON", "back":
            page.ask("document.getElementById('as-json').click()")
            assert page.ask("draftOf(page.id).places") == clicked
        page.ask("document.querySelectorAll('#inputs .input')[2].querySelector('button').click()")
        page.wait("document.activeElement.name === 'kind'")
        page.type("reminder")
        enter(page)
        page.wait("document.getElementById('input-2')?.value === 'reminder'")
        assert page.ask("page.places") == clicked
        page.ask("useEarlier({ fields: { number: 'R-1' } })")
        assert page.ask("page.places") == {"total": clicked["total"]}
        typed = {"number": "R-1", "total": "84.00", "kind": "reminder"}
        assert page.ask("page.changes") == typed
        before = json.dumps(page.ask("page.review.question"))
        served_page.ask("a.txt", document_sha256="d2", label_tables=KINDS)  # of another text
        page.ask("void reload()")
        page.wait(f"page.review?.question !== {before} && page.review.id === page.id")
        assert (page.ask("page.changes"), page.ask("page.places")) == (typed, {})
        assert page.complaints() == []


def test_a_click_puts_words_into_a_long_text_at_the_cursor(
    served_page: ServedPage, chromium: Browser
) -> None:
    plain: dict[str, Any] = {"checks": [], "evidence": None, "confidence": None}
    served_page.ask("a.txt", answer="Rope is to be paid", schema=None, **plain)
    long = {"number": "R-1", "note": "Rope, twelve metres of it. " * 3}
    served_page.ask("b.txt", answer=long, schema={"type": "object"}, **plain)
    value = "document.activeElement.value"
    with served_page.served() as address:
        page = opened(chromium, address)
        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-0'")
        page.ask("fill('84.50', [52, 57])")  # nothing is chosen at first, so nothing is lost
        assert page.ask(value) == "Rope is to be paid 84.50"
        page.ask("document.activeElement.setSelectionRange(5, 7)")
        page.ask("fill('12 m', [40, 44])")
        assert page.ask(value) == "Rope 12 m to be paid 84.50"
        assert page.ask("page.places") == {}  # these are in the text, not it
        page.ask("open(1)")
        wait_for_item(page, "b.txt")
        page.ask("pick(0); fill('R-1042', [25, 31])")
        assert page.ask(value) == "R-1042"
        page.ask("document.getElementById('input-1').focus(); fill('84.50', [52, 57])")
        assert page.ask(value).startswith("Rope, twelve") and "84.50" in page.ask(value)
        page.ask("document.activeElement.select(); fill('Rope', [32, 36])")
        assert page.ask(value) == "Rope"
        assert page.ask("page.places") == {"number": [25, 31], "note": [32, 36]}
        page.ask(f"{value} = 'Rope (m) is'; document.activeElement.setSelectionRange(6, 6)")
        page.ask("fill('12', [40, 42])")
        page.ask("document.activeElement.setSelectionRange(5, 5); fill('84.50', [52, 57])")
        assert page.ask(value) == "Rope 84.50 (12 m) is"
        page.ask("document.getElementById('input-0').select()")
        page.type(remark := "As we agreed on the telephone with Mr Larkfield, without the boxes")
        page.ask("document.activeElement.setSelectionRange(0, 0); fill('Rope', [32, 36])")
        assert page.ask(value) == f"Rope {remark}"  # it is long by now
        assert page.complaints() == []


def test_save_names_the_key_that_saves_from_the_field_in_focus(
    served_page: ServedPage, chromium: Browser
) -> None:
    answer = {"number": "R-1", "note": "Rope, twelve metres of it. " * 3}
    plain: dict[str, Any] = {"checks": [], "evidence": None, "confidence": None}
    served_page.ask("a.txt", answer=answer, schema={"type": "object"}, **plain)
    with served_page.served() as address:
        page = opened(chromium, address)
        page.press("e", text="e")
        page.wait("document.activeElement.id === 'input-0'")
        assert page.text("#save kbd") == "Enter"
        page.ask("document.getElementById('input-1').focus()")
        assert page.text("#save kbd") == "Ctrl Enter"
        page.ask("document.getElementById('save').focus()")
        assert page.text("#save kbd") == "Enter"
        page.ask("document.activeElement.blur()")
        assert page.text("#save kbd") == "Ctrl Enter"
        page.press("Escape")
        page.ask("pick(1); boxed = [['R-1', 0, 3, 0, 0, 1, 1]]")
        page.ask("fillFromPicture(new MouseEvent('click'))")
        assert page.text("#problem").startswith("This is a long text. Press `e`")
        assert page.complaints() == []


def test_a_click_on_a_word_of_the_picture_fills_the_field_and_says_its_place(
    tmp_path: Path, chromium: Browser
) -> None:
    text = bill(net="120.00", vat="0.00")
    desk = Desk(tmp_path, PIPELINE)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.pdf").write_bytes(pdf([text]))
    desk.work()
    with ServedPage(tmp_path).served() as address:
        page = opened(chromium, address, width=1280, height=800)
        page.wait("typeof boxed !== 'undefined' && boxed.length > 20")
        words = page.ask("boxed")
        for at, field in enumerate(page.ask("page.review.fields.map((field) => field.path)")):
            if field in ("kind", "currency"):
                page.ask(f"setMode('edit'); {{const i = document.getElementById('input-{at}'); "
                         f"i.value = '{TRUE[field]}'; "
                         "i.dispatchEvent(new Event('input'))}")  # fmt: skip
                continue
            written = "120.00" if field == "total" else str(TRUE[field])
            some = [word for word in words if word[0] in written.split()]
            if field == "sender":
                some = some[:3]
            first, last = (some[-1], some[-1]) if field == "total" else (some[0], some[-1])
            page.ask(f"page.mode === 'edit' ? document.getElementById('input-{at}').focus() "
                     f": pick({at})")  # fmt: skip
            page.ask(f"""(() => {{
              const side = document.getElementById("picture"), box = side.getBoundingClientRect();
              const point = (word) => ({{ bubbles: true,
                clientX: box.left + box.width * (word[3] + word[5]) / 2,
                clientY: box.top + box.height * (word[4] + word[6]) / 2 }});
              side.dispatchEvent(new PointerEvent("pointerdown", point({json.dumps(first)})));
              side.dispatchEvent(new MouseEvent("click", point({json.dumps(last)})));
            }})()""")
            page.wait(f"document.getElementById('input-{at}')?.value === {json.dumps(written)}")
        page.ask("document.getElementById('save').click()")
        page.wait("!document.getElementById('queue-empty').hidden")
        assert page.complaints() == []
    with desk.reviews() as reviews:
        (decided,) = reviews.decided(is_whole=True)
    assert decided.value == TRUE
    (tmp_path / "inbox/b.pdf").write_bytes(pdf([bill(**NEXT)]))
    desk.work()
    assert desk.waiting() == {}


# Nothing of one document under another's title


IS_EMPTY = """(() => {
  const seen = (id) => !document.getElementById(id).hidden;
  const name = document.getElementById("document-name").textContent;
  const empty = !seen("picture") && !seen("text");
  return { name, empty, accepts: !document.getElementById("accept").disabled,
           text: document.getElementById("text-parts").textContent,
           fields: document.getElementById("fields").textContent,
           src: document.getElementById("image").getAttribute("src") };
})()"""
WATCH = """window.seen = []; (function look() {
  window.seen.push(%s); requestAnimationFrame(look); })()"""


def test_while_a_document_loads_the_pane_is_empty_and_nothing_is_accepted(
    tmp_path: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_bills(tmp_path)
    render, read = documents_reader.render_page, review_page.ReviewPage._text_of
    may_go = threading.Event()
    may_go.set()

    async def slow_picture(*args: Any, **named: Any) -> bytes:
        await asyncio.to_thread(may_go.wait, 60)
        return await render(*args, **named)

    def slow_text(*args: Any) -> str:
        assert may_go.wait(PATIENCE_S)
        return read(*args)

    monkeypatch.setattr(review_page, "render_page", slow_picture)
    monkeypatch.setattr(review_page.ReviewPage, "_text_of", slow_text)
    served_page = ServedPage(tmp_path)
    with served_page.served() as address:
        page = opened(chromium, address, width=1280, height=800)
        items = page.ask("[...document.querySelectorAll('.row b')].map((node) => node.textContent)")
        assert len(items) == 3
        page.ask(WATCH % IS_EMPTY)
        for item in (*items[1:], *items[:2]):
            may_go.clear()
            n_seen = page.ask("window.seen.length")
            named = json.dumps(item)
            page.ask(
                f"[...document.querySelectorAll('.row')]"
                f".find((node) => node.querySelector('b').textContent === {named}).click()"
            )
            page.wait(f"document.getElementById('document-name').textContent === {named}")
            page.wait(
                "document.querySelectorAll('.field').length > 0 || "
                "document.getElementById('accept').disabled"
            )
            page.ask("new Promise((done) => setTimeout(done, 300))")
            enter(page)  # accepts nothing that is not shown
            page.press("ArrowDown")
            frames = page.ask(f"window.seen.slice({n_seen})")
            after = [frame for frame in frames if frame["name"] == item]
            assert len(after) > 3
            for frame in after:
                assert (frame["empty"], frame["accepts"], frame["text"]) == (True, False, ""), frame
                assert frame["src"] is None
            assert len(open_reviews(served_page)) == 3
            may_go.set()
            wait_for_item(page, item)
            assert page.ask(IS_EMPTY)["empty"] is False
            assert page.ask("!document.getElementById('accept').disabled")
        assert page.complaints() == []


def open_reviews(served_page: ServedPage) -> list[str]:
    with Ledger(served_page.folder / ".paddock") as ledger:
        return [review.id for review in ReviewStore(ledger).waiting()]
