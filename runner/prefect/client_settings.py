"""Settings of Prefect's client in Paddock's own processes.

Imported before Prefect. A user's own program that imports `flow` keeps its own settings.
"""

import logging
import os

# No ephemeral server (8 to 13 s), no
# telemetry, no result cache (the ledger has the key), and no log lines in the live table.
SHIPPED = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # Else each event that an unreachable server misses is logged in full.
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    # Waits 2, 4 and 8 s. What is lost then is not shown.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
}
for _name, _value in SHIPPED.items():
    os.environ.setdefault(_name, _value)
# Else the terminal shows each batch of logs that an unreachable server misses.
logging.raiseExceptions = False
