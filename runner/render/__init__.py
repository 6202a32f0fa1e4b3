"""Pipelines and runs as drawings and HTML pages, made offline."""
