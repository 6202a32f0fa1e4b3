"""Notifications when a run ends: webhook, mail or command."""
