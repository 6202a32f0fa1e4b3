"""Pipelines as Mermaid text and nested lists, reports and the style of all pages; made offline."""
