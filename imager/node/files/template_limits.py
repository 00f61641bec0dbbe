"""What rendering a template may cost.

In: nothing. Out: numbers, for who asks and for the process that renders, which share nothing else.
"""

from __future__ import annotations

MiB = 1 << 20
MEMORY_BYTES = 256 * MiB
"""Address space of the process that renders, itself included (it needs about 40 MiB)."""
OUTPUT_BYTES = MiB
"""Of one template, as UTF-8."""
SOURCE_BYTES = MiB
"""Of one template, as it lies in the overlay."""
SECONDS = 30
"""For all templates of one card: an honest one takes milliseconds, even on a busy computer."""
SECONDS_MORE = 0.02
"""For each card, beside SECONDS for all of them, where the cards of a rack are only looked at."""
TEXT = ""
"""The key that makes a JSON object a text with values: what it is as text."""
