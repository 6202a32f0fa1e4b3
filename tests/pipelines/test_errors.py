from paddock.pipelines.errors import Fault, Mark, PipelineError


def test_faults_come_in_the_order_of_the_file() -> None:
    late, early = (Fault(str(n), "", Mark("f", n, 1, 1, "x")) for n in (9, 2))
    assert [one.message for one in PipelineError([late, Fault("-i"), early]).faults] == [
        "2",
        "9",
        "-i",
    ]


def test_the_caret_stands_under_wide_letters_and_tabs() -> None:
    assert Mark("f", 1, 4, 1, "\t標題: x").shown()[1] == "\t    ^"
