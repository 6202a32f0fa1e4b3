"""Meaning of a pipeline file: YAML text, checked model, plan.

Knows no language model, no step's code and no Prefect.
"""
