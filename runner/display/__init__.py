"""A run as it goes on, for a person to watch."""
