"""What the program ``salt`` says of stations, and how it says that one is silent.

In: what a script printed on the master. Out: what each station answered, by name. Nothing of it is
checked further here.
"""

from __future__ import annotations

from imager.base.json_fields import JsonObject
from imager.rack.master.answers import NoAnswer, object_in, parts_of
from imager.rack.master.connection import Door
from imager.rack.master.status import salt_at

SILENT = "it does not answer: is it on, does salt-minion run there, is its name right?"
"""What to say of a station from which nothing came."""
LONGEST_FAULT = 300
"""Characters of what is told of a fault that another computer words."""


def answers_in(door: Door, printed: str, seconds: int) -> JsonObject:
    """The answers in the part ``said`` of what a script ``printed``, which was let run for
    ``seconds``; none where no minion has such a name. Raises as ``salt_at``."""
    with salt_at(door):
        try:
            return object_in(parts_of(printed), "said", "salt", seconds)
        except NoAnswer as error:
            if "No minions matched" in str(error):
                return JsonObject({})
            raise


def is_silent(answer: object) -> bool:
    """Whether Salt says in this answer's place that there is none."""
    return answer is False or (isinstance(answer, str) and "did not return" in answer)
