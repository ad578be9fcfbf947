"""The data on disk: versions, their revisions, aliases and training jobs under one data path.

Several threads and processes may use one data path. A crash at any instruction leaves each version at its old
revision or at its new one, whole. The files are described in :mod:`aipod.model.layout`, the steps in
:mod:`aipod.model.revisions`.

How a version is written, by whoever runs the model's code::

    with store.writer("v1", "initialize"):
        with store.stage("v1") as staging:
            model = construct(Digits, staging.place, "v1", store.root)
            model.initialize(**parameters)
            store.publish(staging, origin="initialize", parameters=parameters)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aipod.errors import Conflict, InvalidArgument, StorageError, VersionNotFound
from aipod.model import adoption, archive, disk, manifest, publishing, recovery, revisions
from aipod.model.aliases import Aliases
from aipod.model.job import Job, JobState
from aipod.model.jobs import Jobs
from aipod.model.layout import Layout
from aipod.model.leases import Lease, lease
from aipod.model.names import check_version
from aipod.model.own_job import OwnJob
from aipod.model.place import LOG_NAME
from aipod.model.staging import Scratch, Staging
from aipod.model.writers import WriterKind, writing

__all__ = ["Job", "JobState", "Jobs", "Lease", "OwnJob", "Revision", "Scratch", "Staging", "Store"]


@dataclass(frozen=True)
class Revision:
    """One published state of a version.

    Attributes:
        number: Counts from 1.
        live: Whether it is the one that is served.
        created: UTC, ISO 8601.
        origin: ``initialize``, ``train``, ``adopted`` or ``imported``.
        size_bytes: Of what was published.
        manifest: All that it says of itself.
    """

    number: int
    live: bool
    created: str
    origin: str
    size_bytes: int
    manifest: Mapping[str, Any]


class Store:
    """Everything under one data path. Making one touches nothing; :meth:`open` does.

    Names of versions that come from outside go through :func:`aipod.model.names.check_version` first, or through any
    method here: all check. Every method may raise ``StorageError`` or ``StorageFull``.

    Args:
        datapath: The root.
        keep_revisions: How many of the newest revisions :meth:`collect` leaves, beside those in use; at least 1.

    Attributes:
        root: The real path of the root.
        jobs: The training jobs.
    """

    def __init__(self, datapath: str | os.PathLike[str], keep_revisions: int = 3) -> None:
        self.root = Path(datapath).resolve()
        self._layout = Layout(self.root)
        self._keep = max(1, keep_revisions)
        self._aliases = Aliases(self._layout)
        self.jobs = Jobs(self._layout)

    def open(self) -> None:
        """Make the layout, finish what a crash left, adopt what 1.0 wrote. Also while other processes use the path.

        Raises:
            StorageError: It cannot be written, or a newer AIPOD wrote it, or its aliases cannot be read.
        """
        with disk.doing("opening the data path"):
            recovery.open_layout(self._layout, self.jobs)
        # Without them nobody could tell an alias from a version that is yet to be.
        self.aliases()

    def versions(self) -> list[str]:
        """Every version that has data, sorted."""
        with disk.doing("listing the versions"):
            try:
                names = sorted(os.listdir(self._layout.models))
            except FileNotFoundError:
                return []
            return [name for name in names if _is_name(name) and self._has_data(name)]

    def _has_data(self, version: str) -> bool:
        try:
            number = revisions.live(self._layout, version)
        except IsADirectoryError:
            return True
        except StorageError:
            return False
        return number is not None and self._is_there(version, number)

    def _is_there(self, version: str, number: int) -> bool:
        return self._layout.revision(version, number).is_dir() and not self._layout.deleting(version).exists()

    def current(self, version: str) -> int | None:
        """The number of the live revision, ``None`` if there is none.

        Raises:
            StorageError: What is in the version's place is not AIPOD's.
        """
        version = check_version(version)
        with disk.doing(f"finding version {version!r}"):
            self._settle(version)
            number = revisions.live(self._layout, version)
            return number if number is not None and self._is_there(version, number) else None

    def _settle(self, version: str) -> None:
        # A version may have been copied into place by 1.0's rules, or another process died, since we opened.
        if adoption.unfinished(self._layout, version):
            recovery.settle(self._layout, version)

    def revisions(self, version: str) -> list[Revision]:
        """Every revision that is whole, the oldest first.

        Raises:
            VersionNotFound: There is none.
        """
        live = self.current(version)
        version = check_version(version)
        with disk.doing(f"listing the revisions of version {version!r}"):
            found = [self._revision(version, number, live) for number in revisions.numbers(self._layout, version)]
        if not found:
            raise VersionNotFound(version)
        return found

    def _revision(self, version: str, number: int, live: int | None) -> Revision:
        directory = self._layout.revision(version, number)
        entry = manifest.read(directory) or manifest.adopted(directory, version)
        created, origin = str(entry.get("created", "")), str(entry.get("origin", ""))
        return Revision(number, number == live, created, origin, manifest.size_bytes(entry), entry)

    def lease(self, version: str, revision: int | None = None) -> Lease:
        """Hold a revision, by default the live one, against collection and deletion by anybody.

        Raises:
            VersionNotFound: It is not there.
        """
        version = check_version(version)
        with disk.doing(f"leasing version {version!r}"):
            self._settle(version)
            return lease(self._layout, version, revision, lambda: self.log_path(version))

    def writer(self, version: str, kind: WriterKind, job: str | None = None) -> AbstractContextManager[None]:
        """Be the one writer of a version, here and in other processes; others are refused at once.

        Raises:
            InvalidArgument: It is an alias.
            TrainingInProgress: A training of it is running; it names the job.
            Conflict: Another writer is at work.
        """
        version = check_version(version)
        target = self._aliases.resolve(version)
        if target != version:
            raise InvalidArgument(f"{version!r} is an alias of version {target!r}; write that one by its own name")
        return writing(self._layout, version, kind, job)

    def stage(self, version: str, job: str | None = None, source: Lease | None = None) -> Staging:
        """A private directory for the writer of a version.

        Args:
            job: The training job's id; by default a new id. The directory that an interrupted run of it left is taken
                up as it is.
            source: A revision whose files it starts with; none makes it empty.

        Raises:
            StorageFull: There is no room for a copy of ``source``; says how much is missing.
        """
        version = check_version(version)
        with disk.doing(f"making a private directory for version {version!r}"):
            staging = Staging(self._layout, version, job or self.jobs.new_id(version))
            if source is not None:
                try:
                    disk.check_room(staging.directory, disk.tree_bytes(source.directory))
                    own = manifest.own_name(source.directory)
                    disk.copy_tree(source.directory, staging.directory, frozenset({own} if own else ()))
                except BaseException:
                    staging.discard()
                    raise
            return staging

    def publish(
        self,
        staging: Staging,
        *,
        origin: str,
        parameters: Mapping[str, Any] | None = None,
        parent: int | None = None,
        result: object = None,
        metrics: Mapping[str, float] | None = None,
    ) -> int:
        """Turn a staging directory into the live revision of its version; called by the version's writer.

        After ``initialize`` the parameters are put into ``model.json``, if the model did not write that itself.

        Args:
            origin: ``initialize``, ``train`` or ``imported``.
            parameters: What the model's method was called with.
            parent: The revision that it was made from.
            result: What the model's method returned; kept if it is short and JSON can hold it.
            metrics: The numbers among what it returned.

        Returns:
            The number.
        """
        job = staging.job if origin == "train" else None
        about = manifest.About(staging.version, origin, parameters or {}, job, parent, result, metrics or {})
        with disk.doing(f"publishing version {staging.version!r}"):
            return publishing.publish(self._layout, staging, about)

    def rollback(self, version: str, revision: int | None = None) -> int:
        """Make another revision live; by default the newest below the live one.

        Returns:
            The live number; nothing happens if it was live already.

        Raises:
            VersionNotFound: There is no such version or revision.
            InvalidArgument: There is none below the live one.
        """
        live = self.current(version)
        version = check_version(version)
        if live is None:
            raise VersionNotFound(version)
        with disk.doing(f"rolling back version {version!r}"), self._locked(version):
            live = revisions.live(self._layout, version)
            present = revisions.numbers(self._layout, version)
            if revision is None:
                older = [number for number in present if number < (live or 0)]
                if not older:
                    raise InvalidArgument(
                        f"version {version!r} has no revision before {live}, the live one; name another"
                    )
                revision = older[-1]
            if revision not in present:
                raise VersionNotFound(version, revision)
            if revision != live:
                revisions.make_live(self._layout, version, revision)
            return revision

    @contextmanager
    def _locked(self, version: str) -> Iterator[None]:
        try:
            with revisions.locked(self._layout, version):
                yield
        except FileNotFoundError:
            # Somebody was faster and deleted it.
            raise VersionNotFound(version) from None

    def delete(self, version: str) -> None:
        """Remove a version with its revisions and jobs; all or, if anything is in the way, nothing.

        Raises:
            VersionNotFound: There is none.
            InvalidArgument: An alias names it.
            Conflict: Somebody uses it or writes it.
            TrainingInProgress: It is being trained.
        """
        version = check_version(version)
        if self.current(version) is None and not revisions.numbers(self._layout, version):
            raise VersionNotFound(version)
        alias = next((alias for alias, target in self._aliases.table().items() if target == version), None)
        if alias is not None:
            raise InvalidArgument(f"the alias {alias!r} names version {version!r}; drop the alias first")
        with writing(self._layout, version, "delete"), disk.doing(f"deleting version {version!r}"):
            with revisions.locked(self._layout, version):
                locks = revisions.lock_all(self._layout, version)
                if locks is None:
                    raise Conflict(version, "it is in use; unload it first")
                jobs = self.jobs.of(version)  # those that a new version of the name has soon stay
                try:
                    # This mark decides: with it the version is gone, whoever finishes the rest.
                    disk.write_file(self._layout.deleting(version), b"")
                    disk.sync_dir(self._layout.home(version))
                    trash = adoption.finish_deletion(self._layout, version)
                finally:
                    revisions.release_all(locks)
            disk.remove_tree(trash)
            self.jobs.forget(jobs)

    def collect(self, version: str) -> list[int]:
        """Remove all revisions but the newest ``keep_revisions``, the live one, and those that somebody has leased.

        Returns:
            The numbers that are gone.
        """
        version = check_version(version)
        with disk.doing(f"collecting old revisions of version {version!r}"), suppress(FileNotFoundError):
            with revisions.locked(self._layout, version):
                gone, trash = revisions.collect(self._layout, version, self._keep)
            for directory in trash:
                disk.remove_tree(directory)
            return gone
        return []

    def scratch(self, version: str) -> Scratch:
        """A directory for an instance of a version that has no data; nothing is made until the instance asks."""
        check_version(version)
        return Scratch(self._layout)

    def log_path(self, version: str) -> Path:
        """Where the records of a version's latest training are; the file need not exist.

        Without a job it is what the live revision brought with it: 1.0 kept the log among the model's files.
        """
        version = check_version(version)
        job = self.jobs.latest(version)
        if job is not None:
            return self._layout.jobs / f"{job.id}.jsonl"
        return self._layout.link(version) / LOG_NAME

    def resolve(self, name: str) -> str:
        """The version that a checked name means: an alias's version, or the name itself. A look into a dict."""
        return self._aliases.resolve(name)

    def aliases(self) -> dict[str, str]:
        """Alias -> version.

        Raises:
            StorageError: The file that holds them is broken.
        """
        with disk.doing("reading the aliases"):
            return self._aliases.table()

    def set_alias(self, alias: str, version: str) -> None:
        """Let ``alias`` name a version, from now on or instead of another.

        Raises:
            InvalidArgument: A version has that name.
            VersionNotFound: There is no such version.
        """
        alias, version = check_version(alias), check_version(version)
        if self.current(alias) is not None or self._layout.home(alias).is_dir():
            raise InvalidArgument(f"{alias!r} is a version, and no alias can have its name; choose another")
        if self.current(version) is None:
            raise VersionNotFound(version)
        with disk.doing(f"setting alias {alias!r}"):
            self._aliases.set(alias, version)

    def drop_alias(self, alias: str) -> None:
        """
        Raises:
            InvalidArgument: There is no such alias.
        """
        with disk.doing(f"dropping alias {alias!r}"):
            self._aliases.drop(check_version(alias))

    def export(self, version: str, revision: int | None, target: Path | BinaryIO) -> None:
        """Write one revision, by default the live one, into a zip file.

        Raises:
            VersionNotFound: It is not there.
            StorageError: A file of it is no longer what was published.
        """
        with self.lease(version, revision) as held, disk.doing(f"exporting version {held.version!r}"):
            archive.write(held.directory, held.version, held.number, target)

    def import_zip(self, version: str, source: Path | BinaryIO) -> int:
        """Publish what :meth:`export` wrote as a new revision of ``version``.

        Returns:
            The number.

        Raises:
            InvalidArgument: It is no such archive, or is damaged, or is not what it says it is; nothing was changed.
            Conflict, TrainingInProgress: As for any writer.
        """
        version = check_version(version)
        with self.writer(version, "import"), self.stage(version) as staging:
            with disk.doing(f"importing version {version!r}"):
                entry = archive.read(source, staging.directory)
            return self.publish(staging, origin="imported", parameters=entry.get("parameters") or {})


def _is_name(name: str) -> bool:
    try:
        return check_version(name) == name
    except InvalidArgument:
        return False
