"""`paddock up`: cron schedules, watches and webhooks that start runs, and the manager that carries them out."""
