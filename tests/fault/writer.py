"""Makes cards in processes of their own, to be killed at any moment.

``python -m tests.fault.writer IMAGE NODE RECEIPTS``, IMAGE a pickled NodeImage, then a line on
stdin for each card: ``write`` or ``update``. It forks, says the child's pid at once, and when the
child has ended ``done STATUS``.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from imager.base.progress import Quiet
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.node.image import NodeImage
from tests.support.smallcard import SIZE, boot_check


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def make(image: NodeImage, node: Path, receipts: Path, *, update: bool) -> None:
    """One card."""
    accepted = accept(target_at(node), SIZE)
    make_card(CardOrder(image, accepted, receipts, check=boot_check(image)), Quiet(), update=update)


def main() -> None:
    image = pickle.loads(Path(sys.argv[1]).read_bytes())
    node, receipts = Path(sys.argv[2]), Path(sys.argv[3])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                make(image, node, receipts, update=line.strip() == "update")
                status = 0
            finally:
                os._exit(status)
        say(str(pid))
        _, status = os.waitpid(pid, 0)
        say(f"done {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
