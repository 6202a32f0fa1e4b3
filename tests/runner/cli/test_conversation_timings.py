from paddock.runner.cli.conversation import timings_text


def test_times_and_rates_are_told() -> None:
    last = {
        "total_duration": 2_500_000_000,
        "load_duration": 1_000_000_000,
        "queue_duration": 1_000,
        "prompt_eval_count": 120,
        "prompt_eval_duration": 200_000_000,
        "cached_tokens": 100,
        "eval_count": 50,
        "eval_duration": 1_250_000_000,
    }
    assert timings_text(last) == (
        "total   2.5 s\n"
        "load    1.0 s\n"
        "prompt  120 tokens in 0.2 s, 100 tokens/s, 100 cached\n"
        "answer  50 tokens in 1.2 s, 40 tokens/s"
    )


def test_what_is_not_told_is_left_out() -> None:
    assert timings_text({}) == ""
    assert timings_text({"prompt_eval_count": 1}) == "prompt  1 token"
