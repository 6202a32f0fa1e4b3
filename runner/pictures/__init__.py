"""A plan and a run as pictures and pages, made offline."""
