"""Helpers that every package shares: files, locks, HTTP, processes, retry, text, hosts, hardware."""
