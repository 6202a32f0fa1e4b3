"""Telling somebody how a run ended: by webhook, mail or command."""
