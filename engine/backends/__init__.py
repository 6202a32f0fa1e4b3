"""Pools: models in local workers, in another process, or on other servers."""
