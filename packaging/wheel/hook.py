"""What pyproject.toml can't say of the wheel."""

import os
import pathlib

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        # Any Python, but a glibc and a processor that the program runs on.
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + os.environ["POLESTAR_PLATFORM"]
        # One by one: of a folder, hatchling takes nothing in a wheel without a package.
        for path in pathlib.Path(self.root, "configs").iterdir():
            build_data["shared_data"][str(path)] = f"share/polestar/configs/{path.name}"
