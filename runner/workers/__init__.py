"""Pipelines as flows of Prefect, and the runs that `paddock up` starts as such."""
