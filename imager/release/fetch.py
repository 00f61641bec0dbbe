"""A release by name becomes a VerifiedRelease: pinned, archived, or fetched and proven.

In: a ReleaseSpec and the rack's lock. Out: a VerifiedRelease in the archive. A pinned release
that is archived costs no network at all. Otherwise the mirrors are asked in turn, and the set of
the first one that proves authentic is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imager.release.archive import verified
from imager.release.catalogue import ReleaseSpec
from imager.release.lock import RackLock
from imager.release.request import Wanted
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease

if TYPE_CHECKING:
    from imager.release.transfer.web import TransferLimits


def fetch_release(
    spec: ReleaseSpec,
    lock: RackLock | None,
    terms: FetchTerms,
    sources: KeySources | None = None,
    limits: TransferLimits | None = None,
) -> VerifiedRelease:
    """The release ``spec`` as this rack uses it, in the archive of ``terms.cache``.

    With a pin in ``lock`` it is exactly the pinned bytes; without one, what the mirrors publish
    now, which then becomes the pin. Without a lock (None) it is the newest one archived, or what
    the mirrors publish. ``sources`` are asked for the key that signs it.

    Raises NetworkError, NotAuthentic (also when the mirrors no longer have the pinned bytes),
    HostStorage, ConfigurationError for ``sources.file``, and Interrupted on Ctrl-C.
    """
    run = Wanted(spec, lock, terms)
    entry = run.archived(mend=not terms.offline)
    if entry is None and terms.offline:
        raise run.not_here()
    if entry is None:
        # Not above: what speaks to the network takes a tenth of a second to import.
        from imager.release.mirrors import alone, from_mirrors

        with alone(run):
            # The run that was waited for may have fetched it and pinned it.
            run = replace(run, lock=None if lock is None else RackLock.load(lock.path))
            entry = run.archived(mend=True)
            if entry is None:
                entry = from_mirrors(run, sources or KeySources(), limits)
                run.pin(entry)
    return verified(entry, spec.models)
