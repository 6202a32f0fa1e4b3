"""Write suites as JUnit XML, in the form that Jenkins, GitLab and GitHub's actions read. Pure.

Within Jenkins' junit-10.xsd. Knows no test and no run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

from .outcome import Case, Suite, counts

# What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOST_CHARS = 20_000  # of one case: GitLab refuses reports that are too large


def junit(suites: Iterable[Suite]) -> str:
    """Give the whole document."""
    found = list(suites)
    total = counts(found)
    root = ET.Element("testsuites", _numbers(total, sum(suite.seconds for suite in found)))
    for suite in found:
        _suite(root, suite)
    ET.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, suite: Suite) -> None:
    numbers = _numbers(counts([suite]), suite.seconds)
    skipped = {"skipped": str(suite.n("skipped"))}
    name = {"name": _text(suite.name), "file": _text(suite.file)}
    made = ET.SubElement(root, "testsuite", name | numbers | skipped)
    for case in suite.cases:
        _case(made, case)
    if suite.notes:
        ET.SubElement(made, "system-out").text = _text("\n".join(suite.notes))


def _case(suite: ET.Element, case: Case) -> None:
    named = {"name": _text(case.name), "classname": _text(case.group)}
    made = ET.SubElement(suite, "testcase", named | {"time": _time(case.seconds)})
    if case.skipped is not None:
        ET.SubElement(made, "skipped", {"message": _text(case.skipped)})
    elif not case.passed:
        for problem in case.problems:
            kind = "error" if case.is_error else "failure"
            said = {"message": _text(problem.message), "type": _text(problem.kind)}
            whole = f"{problem.message}\n{problem.detail}".rstrip()
            ET.SubElement(made, kind, said).text = _text(whole)
    if case.notes:
        ET.SubElement(made, "system-out").text = _text("\n".join(case.notes))


def _numbers(total: dict[str, int], seconds: float) -> dict[str, str]:
    return {
        "tests": str(sum(total.values())),
        "failures": str(total["failed"]),
        "errors": str(total["error"]),
        "time": _time(seconds),
    }


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    """Give what XML can hold of a text."""
    clean = _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
    return clean if len(clean) <= MOST_CHARS else f"{clean[:MOST_CHARS]}…"
