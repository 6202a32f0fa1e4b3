"""Tests of pipelines: cases, cassettes, sandboxes, claims, reports."""
