"""What holds for every test, and for the processes that tests start."""

from __future__ import annotations

import os

# A model that is new to a machine is measured for some seconds when it is loaded; tests, whose
# caches are new each time, must not wait for it. Those of the profile ask for it themselves.
os.environ["PADDOCK_PROFILE_S"] = "0"
