"""Text of documents, payloads and models is never code or an option of a command."""

from pathlib import Path

import pytest

from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.progress.report import Report
from tests.runner.bind.pipeline_faults import faults_of
from tests.runner.world import World, carried_out, errors

HEAD = """\
inputs: {folder: {type: dir, default: out}, words: {type: list, default: [ls]}, told: {type: str}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: t, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: made, uses: files.write, with: {path: "{{ inputs.folder }}/a", text: "{{ doc.name }}"}}
"""
CODE, OPTION = "it could be run as code", "it could be an option, unlike an absolute path"
PROGRAM, VARIABLE = "it would choose the program", "it would choose the variables"


def filled(words: str) -> str:
    """Return words with what documents say in place of PATH, NAME and TEXT."""
    for name, of in (("PATH", "doc.path"), ("NAME", "doc.relpath"), ("TEXT", "steps.t.text")):
        words = words.replace(f"<{name}>", f"{{{{ {of} }}}}")
    return words


def faults(given: str) -> tuple[Fault, ...]:
    return faults_of(f"{HEAD}      - {{id: r, uses: run, with: {{{filled(given)}}}}}\n")


@pytest.mark.parametrize(
    "command",
    [
        """[sh, -c, 'wc -c < "$1"', sh, "<PATH>"]""",
        """[sh, -c, 'wc -c < "$1"', sh, "<NAME>"]""",
        """[bash, -euo, pipefail, -c, 'echo "$1"', bash, "<TEXT>"]""",
        """[env, -u, HOME, LANG=C, bash, -xc, 'echo "$1"', bash, "<TEXT>"]""",
        """[timeout, -k, "5", "9", sh, -c, 'echo "$1"', sh, "<TEXT>"]""",
        """[python3.12, -Ic, 'import sys; print(sys.argv)', "<TEXT>"]""",
        """[python3, -W, ignore, tool.py, "--title=<TEXT> of <NAME>", "<PATH>"]""",
        """[perl, -ne, print, "<PATH>"]""",
        """[git, commit, "--message=<TEXT>"]""",
        """[pandoc, "--output=out/<NAME>", "-V=date=<TEXT>", "<PATH>"]""",
        """[curl, -d, "@<PATH>", "https://example.org/<NAME>"]""",
        """[ls], env: {MY_HOME: "<PATH>", LESSON: "<TEXT>", MAKER: "<TEXT>"}""",
        """[find, ., -exec, sh, -c, 'echo "$1"', sh, "<NAME>", "{}", ";"]""",
        """[awk, -F, ",", "{print $1}", "<PATH>"]""",
        """[awk, -f, rows.awk, --, "<NAME>"]""",
        """[wc, -c, "<PATH>"]""",
        """[wc, -c, "{{ steps.made.path }}"]""",
        """[cp, "<PATH>", "out/<NAME>", "<PATH>.bak"]""",
        """[cp, --, "<NAME>", "{{ inputs.folder }}/<NAME>"]""",
        """[grep, --, "it's <TEXT>", notes.txt]""",
        """[dd, "if=<PATH>", "of=out/<NAME>"]""",
        """[head, -n, "{{ doc.size }}", --, "{{ inputs.told }}"]""",
        """[cat], stdin: "<TEXT>" """,
        """[sh, -c, 'echo "$A"'], env: {A: "<TEXT>", DOC_PATH: "<PATH>"}, stdin: "<TEXT>" """,
        """[sh, tool.sh], stdin: "<TEXT>" """,
        """[sed, -e, s/a/b/], stdin: "<TEXT>" """,
        """["{{ inputs.told }}", -c, "{{ inputs.told }} x"]""",
        """"{{ inputs.words }}" """,
        """"{{ [5, inputs.folder] }}" """,
        """"{{ inputs.told }}" """,
    ],
)  # fmt: skip
def test_outside_text_is_an_argument_a_variable_or_standard_input(command: str) -> None:
    assert faults(f"command: {command}") == ()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("""["<TEXT>"]""", PROGRAM),
        ("""["<PATH>", -v]""", PROGRAM),
        ("""["bin/<NAME>"]""", PROGRAM),
        (""""{{ [doc.name] + inputs.words }}" """, PROGRAM),
        ("""[sh, -c, 'wc -c "<PATH>"']""", CODE),
        ("""[sh, -c, "<TEXT>"]""", CODE),
        ("""[sh, -c, --, "<TEXT>"]""", CODE),
        ("""[bash, -euo, pipefail, -c, "<PATH>"]""", CODE),
        ("""[/bin/dash, "--rcfile=<PATH>", -c, ls]""", CODE),
        ("""[sh, "<PATH>"]""", CODE),
        ("""[python3, "{{ steps.made.path }}"]""", CODE),
        ("""[python3.12, -c, "print('<TEXT>')"]""", CODE),
        ("""[node, "--eval=<TEXT>"]""", CODE),
        ("""[node, -e, "1", "--eval=<TEXT>"]""", CODE),
        ("""[sed, p, notes.txt, "--expression=<TEXT>"]""", CODE),
        ("""[perl, -e, "1", -e, "<PATH>"]""", CODE),
        ("""[awk, --, "<TEXT>", notes.txt]""", CODE),
        ("""[awk, -f, "<PATH>"]""", CODE),
        ("""[jq, ".a == <TEXT>"]""", CODE),
        ("""[env, "<PATH>"]""", CODE),
        ("""[nice, -n, "5", sh, -c, "<PATH>"]""", CODE),
        ("""[docker, run, image, bash, -lc, "<PATH>"]""", CODE),
        ("""[find, ., -exec, "<PATH>", ";"]""", CODE),
        ("""[psql, "--command=select '<TEXT>'"]""", CODE),
        ("""[sed, -n, s/a/b/, -f, "<PATH>"]""", CODE),
        ("""[ssh, host, cat, --, "<PATH>"]""", CODE),
        ("""[make, "IN=<PATH>"]""", CODE),
        ("""[psql, -c, "select '<TEXT>'"]""", CODE),
        ("""[notify-send, "<NAME> has come"]""", CODE),
        ("""[sh], stdin: "<TEXT>" """, CODE),
        ("""[python3, -], stdin: "x = '<TEXT>'" """, CODE),
        ("""[bash, -s, a], stdin: "<TEXT>" """, CODE),
        ("""[timeout, "5", bash], stdin: "<TEXT>" """, CODE),
        ("""[bash, --rcfile, x, -c, "<PATH>"]""", CODE),
        ("""[awk, -F, ",", -f, "<PATH>"]""", CODE),
        ("""[sudo, -u, bob, "<PATH>"]""", CODE),
        ("""[sudo, --user, bob, "<PATH>"]""", CODE),
        ("""[node, --require, x, "<PATH>"]""", CODE),
        ("""[xargs, "-I{}", sh, -c, "cat {}"], stdin: "<TEXT>" """, CODE),
        ("""[timeout, 9s, "<PATH>"]""", CODE),
        ("""[uv, run, python, "<PATH>"]""", CODE),
        ("""[sort, "<NAME>"]""", OPTION),
        ("""[sort, -o, "<NAME>"]""", OPTION),
        ("""[head, "-n<TEXT>"]""", OPTION),
        ("""[env, --, sort, "<NAME>"]""", OPTION),
        ("""[python3, tool.py, "<NAME>"]""", OPTION),
        ("""[ls, "{{ inputs.told }}<NAME>"]""", OPTION),
        ("""[ls, "{{ ('-' ~ doc.path) }}"]""", OPTION),
        ("""[ls], env: "{{ {doc.name: doc.name} }}" """, VARIABLE),
    ],
)
def test_outside_text_is_refused_where_it_may_be_code_or_an_option(command: str, why: str) -> None:
    (fault,) = faults(f"command: {command}")
    assert fault.message.endswith(f" in its command: {why}.")
    assert '`[sh, -c, \'wc -c < "$1"\', sh, "{{ doc.path }}"]`' in fault.remedy


def test_the_fault_has_place_and_references() -> None:
    (fault,) = faults("""command: [sh, -c, 'cat "<PATH>" "<NAME>"']""")
    assert fault.render().splitlines()[:3] == [
        "p.yaml:9:53: step 'r' has untrusted text (doc.path, doc.relpath) in its command: it could "
        "be run as code.",
        """       9 |       - {id: r, uses: run, with: {command: [sh, -c, 'cat "{{ doc.path }}" """
        """"{{ doc.relpath }}"']}}""",
        "         |                                                     " + "^" * 42,
    ]


HOOK = """\
inputs:
  text: {type: str, default: x}
  doc: {type: path, default: a}
  mine: {type: str, default: x}
secrets: {key: {env: KEY}}
on:
  webhook: [{path: /x, secret: "{{ secrets.key }}", inputs: {text: payload.text, doc: payload.doc}}]
"""


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ('steps: [{id: r, uses: run, with: {command: [cat, "{{ inputs.doc }}"]}}]', ""),
        ('steps: [{id: r, uses: run, with: {command: [ls, "{{ inputs.mine }}"]}}]', ""),
        ('steps: [{id: r, uses: run, with: {command: [sh, -c, "{{ inputs.text }}"]}}]',
         f"step 'r' has untrusted text (inputs.text) in its command: {CODE}."),
        ("""steps: [{id: r, uses: run, with: {command: [ls, "{{ inputs.get('text') }}"]}}]""",
         f"step 'r' has untrusted text (inputs) in its command: {OPTION}."),
        ('mcpServers: {s: {command: node, args: ["{{ inputs.text }}"]}}\nsteps: []',
         f"the MCP server 's' has untrusted text (inputs.text) in its command: {CODE}."),
        ('mcpServers: {s: {command: "{{ inputs.text }}"}}\nsteps: []',
         f"the MCP server 's' has untrusted text (inputs.text) in its command: {PROGRAM}."),
        ('  notify: [{when: [failed], command: [sh, -c, "say {{ inputs.text }}"]}]\nsteps: []',
         f"the notification has untrusted text (inputs.text) in its command: {CODE}."),
        ('  notify: [{when: [failed], command: "say {{ inputs.text }}"}]\nsteps: []',
         f"the notification has untrusted text (inputs.text) in its command: {OPTION}."),
        ('  notify: [{when: [failed], command: "say -- {{ inputs.text }}"}]\nsteps: []', ""),
    ],
)  # fmt: skip
def test_a_webhooks_payload_is_no_code_in_steps_servers_and_notifications(
    rest: str, message: str
) -> None:
    found = faults_of(f"{HOOK}{rest}\n")
    assert "".join(fault.message for fault in found if "untrusted" in fault.message) == message


def test_what_a_step_gives_an_inner_pipeline_is_no_code_there(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(
        "inputs: {words: {type: list, default: [ls]}, own: {type: str, default: x}}\n"
        "mcpServers: {s: {command: node, args: ['{{ inputs.own }}']}}\n"
        'steps: [{id: r, uses: run, with: {command: "{{ inputs.words }}"}}]\n'
    )
    text = HEAD + "      - {uses: pipeline, with: {file: inner.yaml, inputs: {GIVEN}}}\n"
    found = faults_of(text.replace("GIVEN", 'words: "{{ [doc.name] }}"'), tmp_path / "p.yaml")
    assert [fault.message for fault in found] == [
        f"step 'r' has untrusted text (inputs.words) in its command: {PROGRAM}."
    ]
    found = faults_of(text.replace("GIVEN", 'own: "{{ doc.path }}"'), tmp_path / "p.yaml")
    assert [fault.message for fault in found] == [
        f"the MCP server 's' has untrusted text (inputs.own) in its command: {CODE}."
    ]


def ran(folder: Path, command: str, rows: str, **inputs: object) -> Report:
    text = f"""\
inputs: {{words: {{type: list, default: [ls]}}, before: {{type: str, default: out/}}}}
steps:
  - {{id: table, uses: files.rows, with: {{path: rows.csv}}}}
  - id: each
    for_each: row in steps.table.rows
    key: row.name
    do: [{{id: r, uses: run, with: {{command: {command}}}}}]
"""
    return carried_out(World(folder, text, {"rows.csv": rows}), inputs=inputs)


def test_a_run_refuses_what_only_then_is_known(tmp_path: Path) -> None:
    rows = f"name,path\na,{tmp_path}/rows.csv\nb,--help\nc,rows.csv\n"
    found = errors(ran(tmp_path, '[cat, "{{ row.path }}"]', rows))
    assert found.keys() == {"b", "c"}
    words = """"{{ ['cat', 'sh'][loop.index0:][:1] }}", stdin: "{{ row.name }}" """
    (error,) = errors(ran(tmp_path, words, "name,path\na,x\nb,x\n")).values()
    assert f"step 'r': `stdin` is 'b', made of untrusted text (row.name): {CODE}." in error
    assert found["b"].startswith(
        f"step 'r': `command.1` is '--help', made of untrusted text (row.path): {OPTION}. "
        "Write the program and its script yourself."
    )


@pytest.mark.parametrize(
    ("command", "inputs", "why"),
    [
        ('"{{ inputs.words }}", stdin: "{{ row.path }}"', {"words": ["sh"]}, CODE),
        ('["{{ inputs.before }}", "{{ row.path }}"]', {"before": "python3"}, CODE),
        ('[ls, "{{ inputs.before }}/{{ row.path }}"]', {"before": "-x"}, OPTION),
    ],
)
def test_a_callers_words_make_no_code_of_a_row(
    tmp_path: Path, command: str, inputs: dict[str, object], why: str
) -> None:
    with pytest.raises(PipelineError) as refused:
        ran(tmp_path, command, "name,path\na,/etc/hosts\n", **inputs)
    (fault,) = refused.value.faults
    assert fault.message == f"step 'r' has untrusted text (row.path) in its command: {why}."


def test_names_that_are_code_to_a_shell_are_names(tmp_path: Path) -> None:
    text = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: r
        uses: run
        with: {command: [sh, -c, 'cat "$1" >> seen', sh, "{{ doc.path }}"]}
      - {id: s, uses: run, with: {command: [cp, "{{ doc.path }}", "copies/{{ doc.name }}"]}}
"""
    names = ("a$(touch PWNED).txt", "--output=victim.txt", "b;touch PWNED;.txt", "c d'\"\n.txt")
    world = World(tmp_path, text, {"copies/victim.txt": "kept"})
    for name in names:
        world.write(f"inbox/{name}", "x")
    assert errors(carried_out(world)) == {}
    assert (tmp_path / "seen").read_text() == "xxxx"
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {*names, "victim.txt"}
    assert not (tmp_path / "PWNED").exists()
