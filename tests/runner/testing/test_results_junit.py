"""JUnit XML: within the form that CI servers read, whatever the texts hold."""

from io import BytesIO

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree  # type: ignore[import-untyped]

from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.testing.case_results import CaseProblem, CaseResult, SuiteResult, run_as_suite
from paddock.runner.testing.junit_and_markdown import junit_xml

# What Jenkins, GitLab, GitLab's importer and the actions of GitHub have in common.
FORM = """\
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:simpleType name="seconds"><xs:restriction base="xs:string">
    <xs:pattern value="[0-9]+(\\.[0-9]+)?"/></xs:restriction></xs:simpleType>
  <xs:attributeGroup name="numbers">
    <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="time" type="seconds" use="required"/>
  </xs:attributeGroup>
  <xs:complexType name="problem" mixed="true">
    <xs:attribute name="type" type="xs:string"/>
    <xs:attribute name="message" type="xs:string"/>
  </xs:complexType>
  <xs:element name="testsuites"><xs:complexType>
    <xs:sequence><xs:element name="testsuite" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
      <xs:sequence>
        <xs:element name="testcase" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
          <xs:choice minOccurs="0" maxOccurs="unbounded">
            <xs:element name="skipped" type="problem"/>
            <xs:element name="error" type="problem"/>
            <xs:element name="failure" type="problem"/>
            <xs:element name="system-out" type="xs:string"/>
          </xs:choice>
          <xs:attribute name="name" type="xs:string" use="required"/>
          <xs:attribute name="classname" type="xs:string" use="required"/>
          <xs:attribute name="time" type="seconds" use="required"/>
        </xs:complexType></xs:element>
        <xs:element name="system-out" type="xs:string" minOccurs="0"/>
      </xs:sequence>
      <xs:attribute name="name" type="xs:string" use="required"/>
      <xs:attribute name="file" type="xs:string"/>
      <xs:attribute name="skipped" type="xs:nonNegativeInteger" use="required"/>
      <xs:attributeGroup ref="numbers"/>
    </xs:complexType></xs:element></xs:sequence>
    <xs:attribute name="name" type="xs:string"/>
    <xs:attributeGroup ref="numbers"/>
  </xs:complexType></xs:element>
</xs:schema>"""


def read(text: str) -> etree._Element:
    tree = etree.parse(BytesIO(text.encode("utf-8")))
    etree.XMLSchema(etree.fromstring(FORM)).assertValid(tree)
    return tree.getroot()


def test_each_case_says_how_it_went() -> None:
    problem = CaseProblem("exists", "there is no 'a.md'.", "In '.': b.md")
    cases = (
        CaseResult("good", "p", 1.5, source="replay", notes=("a note",)),
        CaseResult("bad", "p", problems=(problem, problem)),
        CaseResult("broken", "p", problems=(CaseProblem("run", "no model."),), is_error=True),
        CaseResult("left", "p", skipped="not asked for"),
        CaseResult("flaky", "p", problems=(problem,), turns=(True, False), needed=0.5),
    )
    root = read(
        junit_xml([SuiteResult("p", "p.yaml", cases, ("stale",)), SuiteResult("q", "q.yaml", ())])
    )
    assert dict(root.attrib) == {
        "name": "paddock",
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "time": "1.500",
    }
    by_name = {
        case.get("name"): [(child.tag, child.get("message"), child.text) for child in case]
        for case in root[0]
    }
    whole = "there is no 'a.md'.\nIn '.': b.md"
    failure = ("failure", "there is no 'a.md'.", whole)
    assert by_name[None] == []
    assert by_name["good"] == [("system-out", None, "a note")]
    assert by_name["bad"] == [failure, failure]
    assert by_name["broken"] == [("error", "no model.", "no model.")]
    assert by_name["left"] == [("skipped", "not asked for", None)]
    assert by_name["flaky"] == [], "enough turns passed"


def test_the_documents_of_a_run_are_cases() -> None:
    items = (
        ItemReport("each", "a.md", ItemState.NEW, 1.0),
        ItemReport("each", "b.pdf", ItemState.QUARANTINED, 0.1, error="it is encrypted."),
        ItemReport("each", "c.md", ItemState.FRESH, is_known=True),
        ItemReport("each", "d.md", ItemState.SKIPPED),
        ItemReport("each", "e.md", ItemState.DELETED),
    )
    root = read(
        junit_xml([run_as_suite(Report("r", "digest", "quarantined", {}, items=items), "p.yaml")])
    )
    cases = [(case.get("classname"), case.get("name"), [c.tag for c in case]) for case in root[0]]
    assert cases == [
        ("digest.each", "a.md", ["system-out"]),
        ("digest.each", "b.pdf", ["failure", "system-out"]),
        ("digest.each", "c.md", ["system-out"]),
        ("digest.each", "d.md", ["skipped", "system-out"]),
    ]
    stopped = Report("r", "digest", "failed", {}, message="the disk is full.")
    root = read(junit_xml([run_as_suite(stopped, "p.yaml")]))
    assert root.get("errors") == "1"
    assert root[0][0][0].get("message") == "the disk is full."


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_makes_valid_xml(name: str, message: str, detail: str) -> None:
    case = CaseResult(
        name, message, problems=(CaseProblem(detail, message, detail),), notes=(detail,)
    )
    read(junit_xml([SuiteResult(name, name, (case,), (message,))]))
