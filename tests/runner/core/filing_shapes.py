"""Pipelines that file documents and write one table of them, at once or farther away."""

from collections.abc import Mapping
from textwrap import indent

EACH = """\
  - {id: docs, uses: files.scan, with: {root: "ROOT"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: chat, with: {prompt: "PROMPT {{ steps.text.text }}"}REVIEW}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "FILED{{ doc.relpath }}"}}
    returns: {file: doc.relpath, text: steps.text.text, kind: steps.kind.text}
"""
HERE = EACH.replace("ROOT", "inbox").replace("FILED", "filed/")
BY_KIND = EACH.replace("ROOT", "inbox").replace("FILED", "filed/{{ steps.kind.text | slug }}/")
THERE = EACH.replace("ROOT", "{{ inputs.from }}").replace("FILED", "{{ inputs.to }}/")
SUB = (
    "inputs: {from: {type: dir, default: inbox}, to: {type: str, default: filed}}\n"
    f"steps:\n{THERE}returns: {{rows: steps.each.results, n: steps.each.results | length}}\n"
)
TABLE = '  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ ROWS }}"}}\n'
REFUSED = """\
  - id: refused
    uses: files.write
    with: {path: out/refused.txt, text: "{{ steps.each.failed | length }}"}
"""
SECOND = """\
  - id: ID
    for_each: r in LIST
    do: [{id: of_ID, uses: chat, with: {prompt: "ID {{ r.text }}"}}]
    returns: {file: r.file, text: r.text, more: steps.of_ID.text}
"""


def second(name: str, over: str) -> str:
    return SECOND.replace("ID", name).replace("LIST", over)


MOVED_BY_THE_SECOND = """\
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: texts
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {file: doc.relpath, path: doc.path, sha256: doc.sha256}
  - id: each
    for_each: doc in steps.texts.results
    do:
      - {id: again, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: chat, with: {prompt: "PROMPT {{ steps.again.text }}"}REVIEW}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.file }}"}}
    returns: {file: doc.file, text: steps.again.text, kind: steps.kind.text}
"""
OFFICE = """\
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: texts
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {file: doc.relpath, path: doc.path, sha256: doc.sha256, text: steps.text.text}
  - id: each
    for_each: doc in steps.texts.results
    do: [{id: kind, uses: chat, with: {prompt: "PROMPT {{ doc.text }}"}REVIEW}]
    returns:
      file: doc.file
      path: doc.path
      sha256: doc.sha256
      text: doc.text
      kind: steps.kind.text
  - id: known
    uses: sql
    with:
      tables: {t: "{{ steps.each.results }}"}
      query: select * from t where kind not like '% 1' order by file
  - id: file
    for_each: doc in steps.known.rows
    key: doc.file
    do:
      - uses: files.move
        with: {path: "{{ doc.path }}", to: "filed/{{ doc.kind | slug }}/{{ doc.file }}"}
    returns: {file: doc.file, text: doc.text, kind: doc.kind}
"""  # as the office: read, decide, file what is not left out
THROUGH_INPUTS = (
    OFFICE.partition("  - id: known")[0].replace("id: each", "id: kinds")
    + """\
  - id: sub
    uses: pipeline
    with: {file: sub.yaml, inputs: {rows: "{{ steps.kinds.results }}"}}
"""
)
FILING_SUB = (
    "inputs: {rows: {type: list}}\nsteps:\n"
    + OFFICE.partition("  - id: file")[2].join(("  - id: each", ""))
    + "returns: {rows: steps.each.results}\n"
).replace("steps.known.rows", "inputs.rows")
OF_EACH = (
    THROUGH_INPUTS.partition("  - id: sub")[0]
    + """\
  - id: rows
    for_each: r in steps.kinds.results
    key: r.file ~ ' ' ~ r.sha256[:6]
    do: [{id: sub, uses: pipeline, with: {file: sub.yaml, inputs: {rows: "{{ [r] }}"}}}]
    returns: {rows: steps.sub.rows}
"""
)
OF_KIND = "steps.kinds.results | selectattr('kind', 'equalto', k) | list"
OF_KINDS = (
    THROUGH_INPUTS.partition("  - id: sub")[0]
    + f"""\
  - id: rows
    for_each: k in steps.kinds.results | map(attribute='kind') | unique | sort
    do:
      - id: sub
        uses: pipeline
        with: {{file: sub.yaml, inputs: {{rows: "{{{{ {OF_KIND} }}}}"}}}}
    returns: {{rows: steps.sub.rows}}
"""
)
NESTED = OF_KINDS.partition("    do:\n")[0] + (
    "    do:\n"
    + indent(OFFICE.partition("  - id: file")[2].join(("  - id: each", "")), "    ")
    + "    returns: {rows: steps.each.results}\n"
).replace("steps.known.rows", OF_KIND)
IN_ROWS = "steps.rows.results | map(attribute='rows') | flatten | sort(attribute='file') | list"
IN_A_BLOCK = """\
  - id: folders
    for_each: f in ['inbox']
    do: [{id: sub, uses: pipeline, with: {file: sub.yaml, inputs: {from: "{{ f }}"}}}]
    returns: {folder: f, rows: steps.sub.rows}
"""
IN_FOLDERS = "steps.folders.results | map(attribute='rows') | flatten | list"
SHAPES: Mapping[str, str] = {
    "plain": HERE + TABLE.replace("ROWS", "steps.each.results"),
    "moved_by_second": MOVED_BY_THE_SECOND + TABLE.replace("ROWS", "steps.each.results"),
    "office": OFFICE + TABLE.replace("ROWS", "steps.file.results"),
    "second": HERE + second("second", "steps.each.results")
    + TABLE.replace("ROWS", "steps.second.results"),
    "keyed": HERE
    + second("second", "steps.each.results").replace("    do", "    key: r.file\n    do")
    + TABLE.replace("ROWS", "steps.second.results"),
    "third": HERE + second("second", "steps.each.results") + second("third", "steps.second.results")
    + TABLE.replace("ROWS", "steps.third.results"),
    "copies": HERE
    + """\
  - id: copies
    uses: duplicates
    with: {rows: "{{ steps.each.results }}", key: file, content: text}
"""
    + second("second", "steps.copies.rows").replace("second {{ r", "second {{ r.copy_of }} {{ r")
    + TABLE.replace("ROWS", "steps.second.results"),
    "sub": "  - {id: sub, uses: pipeline, with: {file: sub.yaml}}\n"
    + TABLE.replace("ROWS", "steps.sub.rows"),
    "sub_second": "  - {id: sub, uses: pipeline, with: {file: sub.yaml}}\n"
    + second("second", "steps.sub.rows") + TABLE.replace("ROWS", "steps.second.results"),
    "sub_in_block": IN_A_BLOCK + TABLE.replace("ROWS", IN_FOLDERS),
    "sub_in_block_second": IN_A_BLOCK + second("second", IN_FOLDERS)
    + TABLE.replace("ROWS", "steps.second.results"),
    "sub_through_inputs": THROUGH_INPUTS + TABLE.replace("ROWS", "steps.sub.rows"),
    "sub_of_each": OF_EACH + TABLE.replace("ROWS", IN_ROWS),
    "sub_of_kinds": OF_KINDS + TABLE.replace("ROWS", IN_ROWS),
    "nested": NESTED + TABLE.replace("ROWS", IN_ROWS),
    "by_kind": BY_KIND + TABLE.replace("ROWS", "steps.each.results"),
}  # fmt: skip
"""By name, the steps of a pipeline; those with `sub` in their name run `sub.yaml`."""

FILES_RESULTS = ("sub_through_inputs", "sub_of_each", "sub_of_kinds", "nested")
"""Those that file results, by a block of a sub-pipeline or within another block."""
DECIDED_ALONE = ("plain", "by_kind", "moved_by_second", "office", "sub", *FILES_RESULTS)
"""Those whose tables have nothing but documents and what a person decided."""


def pipeline_files(shape: str, prompt: str = "Kind of", review: str = "") -> dict[str, str]:
    """Return the files of a pipeline by their names; `review`: when a person is asked."""
    files = {"pipeline.yaml": f"name: letters\nsteps:\n{SHAPES[shape]}"}
    if "sub" in shape:
        files["sub.yaml"] = FILING_SUB if shape in FILES_RESULTS else SUB
    elif review and shape not in FILES_RESULTS:
        files["pipeline.yaml"] += REFUSED
    asked = f', review: {{when: "{review}"}}' if review else ""
    return {n: t.replace("PROMPT", prompt).replace("REVIEW", asked) for n, t in files.items()}
