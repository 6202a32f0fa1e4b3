"""A pipeline whose file, folder or state is another one now."""

import shutil
from pathlib import Path

from paddock.runner.settings import STATE_FOLDER
from tests.runner.world import World


class MovedWorld(World):
    @property
    def states(self) -> Path:
        """Return where it is noted what is known of other places."""
        return self.folder / STATE_FOLDER / "places"

    def rename_pipeline(self) -> None:
        self.file.rename(self.folder / "other.yaml")
        self.name = "other.yaml"

    def rename_base(self) -> None:
        self.folder = self.folder.rename(self.folder.with_name("moved"))

    def lose_state(self) -> None:
        shutil.rmtree(self.states)
