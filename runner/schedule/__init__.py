"""`paddock up`: cron schedules, watches and webhooks that start runs; the run manager."""
