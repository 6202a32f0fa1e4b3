"""Shared helpers: files, locks, HTTP, processes, retry, tasks, text, units, hosts, hardware."""
