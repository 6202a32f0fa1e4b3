"""Tokens in, tokens out: pool, workers, scheduler. Knows no YAML, no steps, no Prefect."""
