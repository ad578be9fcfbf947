"""Where an instance's data lies, and how an instance is made that knows it from the first line of its ``__init__``.

Four kinds:

- ``in_place``: the class alone, in a notebook or a test; ``models/<version>`` under the data path, as in 1.0.
- ``revision``: a published state. Nothing of it is changed any more; a model may add files of its own (a cache).
- ``staging``: the private directory of an ``initialize`` or a ``train``, which becomes a revision if that succeeds.
- ``scratch``: for a version that has no data; made when first asked for, removed with the instance, never adopted.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from aipod.errors import LoadError, StorageError
from aipod.model import layout, manifest

__all__ = ["LOG_NAME", "Kind", "Place", "construct"]

Kind = Literal["in_place", "revision", "staging", "scratch"]
LOG_NAME = "trainning.log"

M = TypeVar("M")


@dataclass(frozen=True)
class Place:
    """A directory and the training log that belongs to it.

    Attributes:
        kind: One of the four.
        directory: Returns the real directory, which need not exist.
        log_path: Returns the file of the training log, which need not exist either; asked anew at every use.
        prepare: Called before anything is written.
    """

    kind: Kind
    directory: Callable[[], Path]
    log_path: Callable[[], Path]
    prepare: Callable[[], None] = lambda: None

    @classmethod
    def in_place(cls, datapath: Path, version: str) -> Place:
        """``models/<version>``, or the live revision's directory where a server has published the version."""
        path = datapath / layout.MODELS / version
        return cls._at("in_place", lambda: path.resolve() if path.is_symlink() else path)

    @classmethod
    def revision(cls, directory: Path, log_path: Callable[[], Path] | None = None) -> Place:
        return cls._at("revision", lambda: directory, log_path)

    @classmethod
    def staging(cls, directory: Path, log_path: Path | None = None) -> Place:
        return cls._at("staging", lambda: directory, None if log_path is None else lambda: log_path)

    @classmethod
    def scratch(cls, directory: Path, prepare: Callable[[], None]) -> Place:
        """``prepare`` makes the directory; it is called more than once."""
        return cls("scratch", lambda: directory, lambda: directory / LOG_NAME, prepare)

    @classmethod
    def _at(cls, kind: Kind, directory: Callable[[], Path], log_path: Callable[[], Path] | None = None) -> Place:
        return cls(kind, directory, log_path or (lambda: directory() / LOG_NAME))

    @property
    def published(self) -> bool:
        """Whether others may be reading the directory: a revision, also one that a class alone reached by its link."""
        return self.kind == "revision" or (self.kind == "in_place" and layout.is_revision(self.directory()))

    def begin_record(self, version: str) -> None:
        """Called before a record goes to the training log.

        Raises:
            StorageError: A class alone is at work on a published revision. Its ``train`` would write there, too, and
                this is all of it that can be told from reading.
        """
        if self.kind == "in_place":
            self.refuse_change(self.directory(), f"writing to the training log of version {version!r}")
        self.prepare()

    def refuse_change(self, path: Path, doing: str) -> None:
        """Guard what was published; ``path`` is the directory or something in it.

        Raises:
            StorageError: ``path`` holds something that the revision was published with.
        """
        directory = self.directory()
        if not self.published or (path != directory and not manifest.names_any(directory, path.relative_to(directory))):
            return
        raise StorageError(
            doing,
            "it belongs to a published revision, which others may be reading and a rollback may need;"
            " do it in initialize() or train() of a served model, or use a data path that is not served",
        )


def construct(
    cls: type[M],
    place: Place,
    version: str,
    datapath: str | os.PathLike[str],
    attributes: Mapping[str, object] | None = None,
) -> M:
    """Make an instance that lies at ``place``, so that a model which loads in ``__init__`` finds its data there.

    What ``__init__`` takes decides how it is called: ``version`` and ``datapath`` by name, one of them, ``*args``, or
    nothing. A class that forgets to call ``super().__init__`` works as well.

    Args:
        attributes: What the instance has besides, before its ``__init__`` runs.

    Raises:
        LoadError: ``__init__`` wants arguments that nobody could give it.
        Exception: What ``__init__`` raised, unchanged.
    """
    args, kwargs = _arguments(cls.__init__, version, str(datapath))
    instance = cls.__new__(cls, *args, **kwargs)
    settle = getattr(instance, "_aipod_settle", None)
    if settle is not None:
        settle(version, Path(datapath), place)
    vars(instance).update(attributes or {})
    cls.__init__(instance, *args, **kwargs)
    return instance


def _arguments(init: Callable[..., None], version: str, datapath: str) -> tuple[tuple[str, ...], dict[str, str]]:
    signature = inspect.signature(init)
    parameters = list(signature.parameters.values())[1:]
    kinds = [p.kind for p in parameters]
    by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    kwargs = {"version": version, "datapath": datapath}
    args: tuple[str, ...] = ()
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        kwargs = {name: value for name, value in kwargs.items() if name in by_name}
        if not kwargs and kinds[:1] in ([inspect.Parameter.VAR_POSITIONAL], [inspect.Parameter.POSITIONAL_ONLY]):
            args = (version, datapath)
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        reason = f"{init.__qualname__} is given version and datapath alone, and that does not fit ({error})"
        raise LoadError(version, f"{reason}; give its other arguments defaults") from None
    return args, kwargs
