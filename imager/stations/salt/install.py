"""What makes a minion a station, as Salt puts it there: program, udev rule and our module.

In: a Door to the master. Out: files in its file server, and its setting for pillars.
"""

from __future__ import annotations

from imager.stations.salt.scripts import PILLAR_FOLDER

MASTER_FILE = "picloud-image.conf"
"""In /etc/salt/master.d."""


def master_settings() -> str:
    """What the master needs to know: where lies what is for one minion alone."""
    return (
        "# Written by picloud-image rack stations install.\n"
        "# What is handed to one station is in a folder of its name. If you have an ext_pillar of\n"
        "# your own elsewhere, put this entry into that list and remove this file.\n"
        "ext_pillar:\n"
        "  - file_tree:\n"
        f"      root_dir: {PILLAR_FOLDER}\n"
    )
