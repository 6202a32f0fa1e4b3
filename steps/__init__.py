"""Steps: one unit of work each, by a Protocol of one method.

Knows no Prefect and no runner.
"""
