import re

from paddock.runner.render.graph_mermaid import graph_mermaid
from paddock.runner.render.graph_model import GraphBox, LastStepRun

HOSTILE = '<script>alert(\'x\')</script> & "]; click a "javascript:alert(1)" %%{init}%% end'
BOXES = (
    GraphBox("docs", "docs", "files.scan", last=LastStepRun("done", n=1)),
    GraphBox(
        "each", "each", f"doc in steps.docs.files | select('{HOSTILE}')", reads=("docs",),
        body=(
            GraphBox("text", "text", "files.read", last=LastStepRun("done", n=3, seconds=0.4)),
            GraphBox("sum", "sum", "chat", f"writer = {HOSTILE}", reads=("text",),
                last=LastStepRun("failed", n=3, seconds=75, calls=2)),
            GraphBox("(files.write)", "files.write", "", reads=("sum",), last=LastStepRun("left")),
        ),
        last=LastStepRun("failed", {"new": 2, "quarantined": 1}, 3)
    ),
)  # fmt: skip


def test_mermaid_is_made_of_harmless_words_and_has_what_the_last_run_did() -> None:
    text = graph_mermaid(HOSTILE, BOXES)
    body = text.split("flowchart TD\n")[1]
    for line in body.splitlines():
        assert line.count('"') in (0, 2)  # no one's text ends a label
        assert not re.search(r"<(?!b>|/b>|br/>)|%|&|\\", line)
    assert 'n_docs["<b>docs</b><br/>files.scan<br/>done"]' in body
    assert "subgraph n_each[" in body
    assert '<br/>2 done · 1 quarantined"]' in body
    assert '<br/>3 times · 1 min 15 s · 2 calls"]' in body
    assert "n_docs --> n_each" in body
    assert "n_sum --> n__28files_2ewrite_29" in body
    assert "class n_sum failed" in body
