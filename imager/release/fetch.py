"""From the name of a release to a VerifiedRelease: found in the archive, or fetched and proven.

In: a ReleaseSpec and the rack's lock. Out: a VerifiedRelease in the archive. For a pinned release
that is archived the network is not used. Otherwise the mirrors are asked one after another, and the
first release that is proven to be authentic is kept.
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
    now, which is then pinned. Without a lock (None) it is the newest one in the archive, or else
    what the mirrors publish. ``update`` asks the mirrors in any case and moves the pin;
    ``offline`` never uses the network.

    Raises NetworkError, NotAuthentic (also when the mirrors no longer have the pinned bytes),
    OlderRelease where the pin would move to one that was signed before it, MalformedRelease for
    what is signed and is no release, HostStorage, ConfigurationError for ``sources.file``, and
    Interrupted on Ctrl-C.
    """
    run = Wanted(spec, lock, terms)
    entry = run.archived(mend=not terms.offline)
    if entry is None and terms.offline:
        raise run.not_here()
    if entry is None:
        # Not imported above: the modules for the network take 0.1 s to import.
        from imager.release.mirrors import alone, from_mirrors

        with alone(run):
            # Another run, for which this one waited, may have fetched and pinned it meanwhile.
            run = replace(run, lock=None if lock is None else RackLock.load(lock.path))
            entry = run.archived(mend=True)
            if entry is None:
                entry = from_mirrors(run, sources or KeySources(), limits)
                run.require_newer(entry)
                run.pin(entry)
    return verified(entry, spec.name, spec.models)
