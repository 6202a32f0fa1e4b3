"""Notifications when a run ends: webhook, mail, command, or a service that Apprise knows."""
