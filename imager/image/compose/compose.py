"""A release becomes a golden image: unpacked, made into two filesystems, checked, cached.

In: a VerifiedRelease, and the PackageSet and VerifiedSalt to put into it. Out: a GoldenImage in
the cache, the same bytes on every computer with the same tools. Nothing is mounted and no
privileges are needed. A run that is killed at any moment leaves nothing that a later run could take
for an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import host_storage, remove_tree, require_free
from imager.base.errors import MalformedRelease, NotAuthentic
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Phase, Progress
from imager.base.run import require_tools
from imager.base.trusted_folder import TrustedFolder
from imager.bootcheck.check import check_boot
from imager.bootcheck.contents import said_by
from imager.bootcheck.formats.kernel import inspect_kernel
from imager.disk import mbr
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import ExtentMap
from imager.disk.layout import Layout, plan_layout, root_bytes_for
from imager.disk.manifest import Manifest, Reader, build_manifest
from imager.image.compose import cache as golden_cache
from imager.image.compose.block_map import block_map
from imager.image.compose.boot_fs import boot_hashes, check_boot_fs, make_boot
from imager.image.compose.cache import Composed, UnusableEntry, golden_key
from imager.image.compose.file_digests import FileDigests, digest_files
from imager.image.compose.golden import GoldenImage
from imager.image.compose.ids import golden_identity
from imager.image.compose.ingredients import METADATA_BYTES, Ingredients
from imager.image.compose.root_fs import check_root, make_root, root_steps
from imager.image.compose.staging import Staged, stage
from imager.image.unpack.members import EntryKind
from imager.packages.fetch.archive import PackageArchive
from imager.packages.verified import PackageSet
from imager.release.archive import prove
from imager.release.content_store import set_aside
from imager.release.verified import VerifiedRelease, VerifiedSalt

_TOOLS = tools_for(ToolUse.COMPOSE)


def cached_golden(
    release: VerifiedRelease,
    cache: Cache,
    salt: VerifiedSalt | None = None,
    packages: PackageSet | None = None,
) -> GoldenImage | None:
    """The golden image of ``release``, ``salt`` and ``packages`` if the cache has a sound one, else
    None. Nothing is made or changed."""
    require_tools(*_TOOLS)
    made_of = Ingredients(release, salt, packages)
    try:
        golden = _loaded(made_of, cache, golden_key(release, salt, packages))
    except UnusableEntry:
        return None
    return golden and replace(golden, made_of=made_of)


def compose(
    release: VerifiedRelease,
    cache: Cache,
    progress: Progress,
    salt: VerifiedSalt | None = None,
    packages: PackageSet | None = None,
) -> GoldenImage:
    """The golden image of ``release`` with ``salt`` and ``packages`` in it, from the cache or made
    now.

    Raises MalformedRelease for a release, a package or a Salt that cannot be put on a card,
    ConfigurationError when ``packages`` do not go together with the release or what ``salt`` needs
    is not there, NotAuthentic when an archived file was damaged after it was fetched, HostStorage
    when the disk is too full, MissingTool.
    """
    require_tools(*_TOOLS)
    made_of, key = Ingredients(release, salt, packages), golden_key(release, salt, packages)

    def again(why: str, inode: int) -> GoldenImage:
        """See GoldenImage. Another run, or card, may have done all of it already."""
        with _composing_alone(cache.made("golden", 0o700), key, progress):
            _set_aside(cache.looked_at("golden") / key, inode, why, progress)
            return _loaded_or_composed(made_of, cache, key, progress)

    with _composing_alone(cache.made("golden", 0o700), key, progress):
        golden = _loaded_or_composed(made_of, cache, key, progress)
    if golden.first_boot:
        progress.note(f"left by packages for first boot: {', '.join(golden.first_boot)}")
    return replace(golden, again=again, made_of=made_of)


def _set_aside(entry: TrustedFolder, inode: int, why: str, progress: Progress) -> None:
    """Rename ``entry`` of the cache if its image still is the file with that ``inode``."""
    with suppress(FileNotFoundError), entry.open(golden_cache.IMAGE) as image:
        if os.fstat(image).st_ino == inode:
            aside = set_aside(entry)
            progress.warn(
                f"{entry.path / golden_cache.IMAGE} was altered: {why}; it is kept as "
                f"{aside.name}, and the image is composed anew"
            )


def _loaded_or_composed(
    made_of: Ingredients, cache: Cache, key: str, progress: Progress
) -> GoldenImage:
    """The image under ``key``, whose lock the caller holds."""
    try:
        golden = _loaded(made_of, cache, key)
    except UnusableEntry as reason:
        progress.note(f"the cached image is composed again: {reason}")
        golden = None
    return golden or _compose(made_of, cache, key, progress)


def _loaded(made_of: Ingredients, cache: Cache, key: str) -> GoldenImage | None:
    """The cached image under ``key``, if there is one. A rack that calls the same release otherwise
    may have composed it. Raises as ``load``."""
    golden = golden_cache.load(made_of.release.sha256, cache, key)
    return golden and replace(golden, release_name=made_of.release.name)


@contextmanager
def _composing_alone(golden: TrustedFolder, key: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of ``key``: one run at a time composes a release, and others wait for its
    image."""
    lock = f"{key}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(golden.locked(lock, wait=False))
        except BlockingIOError:
            progress.note("another run is composing this release; waiting for it")
            stack.enter_context(golden.locked(lock))
        yield


def _compose(made_of: Ingredients, cache: Cache, key: str, progress: Progress) -> GoldenImage:
    release = made_of.release
    with cache.work_folder("compose") as work, host_storage(work):
        _require_space(work, made_of.room_bytes)
        (work / "files").mkdir()
        staged = _staged(made_of, work / "files", cache, progress)
        image = work / golden_cache.IMAGE
        layout = _plan(staged)
        content_bytes = staged.root.size_bytes() + staged.boot.size_bytes()
        _require_space(work, content_bytes + METADATA_BYTES)
        with progress.steps("make filesystems", root_steps(staged)) as phase:
            _make(image, layout, staged, release, phase)
        manifest, boot_files, files = _check(image, layout, staged, release, progress)
        composed = Composed(
            image,
            release,
            key,
            layout,
            manifest,
            boot_files,
            files,
            kernels=said_by(inspect_kernel, boot_files.values()),
            first_boot=staged.first_boot,
        )
        return golden_cache.publish(composed, cache)


def _staged(made_of: Ingredients, folder: Path, cache: Cache, progress: Progress) -> Staged:
    release = made_of.release
    try:
        return stage(release, folder, progress, made_of.salt, made_of.packages)
    except NotAuthentic:
        if release.tarball.parent == cache.releases / release.sha256:
            # Renames the damaged entry, so that the same command run again fetches it anew.
            prove(release, cache, progress)
        for package in made_of.packages.install if made_of.packages else ():
            if package.path.parent == cache.packages / package.sha256:
                PackageArchive(cache).require_unaltered(package)
        raise


def _plan(staged: Staged) -> Layout:
    root_bytes = root_bytes_for(staged.root.size_bytes(), len(staged.root.entries))
    return plan_layout(staged.boot.size_bytes(), root_bytes)


def _require_space(folder: Path, size_bytes: int) -> None:
    require_free(
        folder,
        size_bytes,
        "composing takes about",
        "free some space, or put the cache elsewhere with --cache DIR",
    )


def _make(
    image: Path, layout: Layout, staged: Staged, release: VerifiedRelease, phase: Phase
) -> None:
    identity = golden_identity(release.sha256)
    with image.open("wb") as file:
        file.truncate(layout.size_bytes)
        file.write(mbr.encode(layout, identity.disk_id))
    # The two filesystems lie in different parts of one file, so they can be made side by side.
    with ThreadPoolExecutor(1) as other_core:
        boot = other_core.submit(make_boot, image, layout.boot, staged, identity)
        make_root(image, layout.root, staged, identity, phase)
        boot.result()


def _check(
    image: Path, layout: Layout, staged: Staged, release: VerifiedRelease, progress: Progress
) -> tuple[Manifest, Mapping[str, str], FileDigests]:
    """Check both filesystems; map and hash what a card must hold, and every file."""
    with image.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        names = [path for path, entry in staged.root.files() if entry.kind is EntryKind.FILE]
        # What takes longest: each file is digested, and the staged one it was copied from removed.
        with (
            progress.steps("check filesystems", 2 * len(names)) as phase,
            ThreadPoolExecutor(2) as other_core,
        ):
            cleared = other_core.submit(_clear, staged.root_folder, names, phase)
            root_checked = other_core.submit(check_root, image, layout.root, staged.made_at)
            boot = check_boot_fs(image, layout.boot, staged, read)
            root = Ext4.open(read, layout.root.offset, Budget.of_our_image())
            files = other_core.submit(digest_files, root, phase)
            extents = block_map(layout, boot, root)
            boot_files = boot_hashes(boot)
            _require_bootable(release, layout, read, boot_files)
            manifest = _manifest(layout, extents, read, progress)
            root_checked.result()
            cleared.result()
        return manifest, boot_files, files.result()


def _clear(folder: Path, names: Iterable[str], phase: Phase) -> None:
    """Remove ``folder`` and all in it; a step is done with each of ``names``."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        phase.advance(1)
    remove_tree(folder)


def _manifest(layout: Layout, extents: ExtentMap, read: Reader, progress: Progress) -> Manifest:
    with progress.phase("hash", extents.total_bytes) as phase:

        def counted(offset: int, length: int) -> bytes:
            phase.advance(length)
            return read(offset, length)

        return build_manifest(layout.size_bytes, extents, counted)


def _require_bootable(
    release: VerifiedRelease, layout: Layout, read: Reader, boot_files: Mapping[str, str]
) -> None:
    """Raise MalformedRelease unless every model the release is for would start from the image.

    The digests tell the check that the files are those of one signed release. It then does not
    apply rules that were learned from older firmware and may be wrong for this one.
    """
    for model in release.models:
        report = check_boot(read, layout.size_bytes, model=model, expected=boot_files)
        if report.undecided is not None:
            raise MalformedRelease(
                f"it cannot be said whether {release.name} would boot a {model}: "
                f"{report.undecided.what}",
                hint="choose another release: this one has more than a Raspberry Pi needs",
            )
        if errors := report.errors:
            raise MalformedRelease(
                f"{release.name} would not boot a {model}: {errors[0].what}",
                hint="choose a release made for this model, or name the model it is made for",
                details=[found.what for found in errors],
            )
