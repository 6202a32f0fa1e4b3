"""What this package brings to Paddock; `pyproject.toml` says under which names."""
