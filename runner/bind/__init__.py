"""From a plan to typed steps, and everything that is checked before a run.

Parameters, models, tools, permissions, protected files.
"""
