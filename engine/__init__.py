"""Tokens in, tokens out: pools, workers, model store, HTTP service.

Knows no YAML, no steps, no Prefect.
"""
