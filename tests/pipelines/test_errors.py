from paddock.pipelines.errors import Fault, Mark, PipelineError, did_you_mean

LINE = "        model: qwen3-8b"


def test_a_fault_reads_as_the_language_page_shows_it() -> None:
    fault = Fault(
        "step 'summary' asks for model 'qwen3-8b', which is not under `models`.",
        "Known: 'writer', 'vec'. Add it under `models` or correct the name.",
        Mark("news.yaml", 14, 16, 8, LINE),
    )
    assert fault.render() == (
        "news.yaml:14:16: step 'summary' asks for model 'qwen3-8b', which is not under `models`.\n"
        "      14 |         model: qwen3-8b\n"
        "         |                ^^^^^^^^\n"
        "  Known: 'writer', 'vec'. Add it under `models` or correct the name."
    )
    assert fault.as_json() == {
        "file": "news.yaml",
        "line": 14,
        "column": 16,
        "message": "step 'summary' asks for model 'qwen3-8b', which is not under `models`.",
        "remedy": "Known: 'writer', 'vec'. Add it under `models` or correct the name.",
    }


def test_faults_come_in_the_order_of_the_file() -> None:
    late, early = (Fault(str(n), "", Mark("f", n, 1, 1, "x")) for n in (9, 2))
    assert [one.message for one in PipelineError([late, Fault("-i"), early]).faults] == [
        "2",
        "9",
        "-i",
    ]


def test_known_names_end_with_the_nearest() -> None:
    assert did_you_mean("wirter", ["writer", "vec"]) == (
        "Known: 'writer', 'vec'. Did you mean 'writer'?"
    )
    assert did_you_mean("zzz", ["a"]) == "Known: 'a'."
    assert did_you_mean("zzz", []) == "There are none."


def test_the_caret_stands_under_wide_letters_and_tabs() -> None:
    assert Mark("f", 1, 4, 1, "\t標題: x").shown()[1] == "\t    ^"
