"""A zip file in memory: 1.0's way of sending several files as one ``binary_data``."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Literal, cast
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from aipod.errors import InvalidArgument

__all__ = ["ZipPackage"]


class ZipPackage:
    """Read or write a zip file that is held in memory; also a context manager.

    Args:
        path: A file whose content to start with; it is read whole and not changed.
        data: The content to start with, where there is no ``path``.
        mode: ``"r"`` reads, ``"w"`` starts anew, ``"a"`` adds; by default what is given is read, and nothing is
            written to.

    Raises:
        InvalidArgument: What is given is no zip file.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, data: bytes | None = None, mode: str | None = None
    ) -> None:
        if path is not None:
            data = Path(path).read_bytes()
        mode = mode or ("r" if data else "w")
        if mode not in ("r", "w", "a", "x"):
            raise InvalidArgument(f"a zip package has no mode {mode!r}; use 'r', 'w' or 'a'")
        stream = BytesIO(data or b"")
        try:
            # zipfile's "x" concerns a path's existence, and here there is no path.
            self._package: ZipFile | None = ZipFile(stream, cast(Literal["r", "w", "a"], "w" if mode == "x" else mode))
        except BadZipFile:
            raise InvalidArgument("the package is no zip file, or was cut short; send it again") from None
        self._stream = stream

    @property
    def package(self) -> ZipFile:
        """The open zip file.

        Raises:
            InvalidArgument: It was closed.
        """
        if self._package is None:
            raise InvalidArgument("the package is closed; make a new one from what close() returned")
        return self._package

    def read_file(self, arcname: str) -> bytes:
        """
        Raises:
            InvalidArgument: There is no such member, or it is damaged.
        """
        try:
            return self.package.read(arcname)
        except KeyError:
            raise InvalidArgument(f"the package has no file {arcname!r}; see package.namelist()") from None
        except BadZipFile:
            raise InvalidArgument(f"the package's file {arcname!r} is damaged; send it again") from None

    def write_file(
        self, arcname: str, path: str | os.PathLike[str] | None = None, data: bytes | str | None = None
    ) -> None:
        """Add a member from a file or, where there is no ``path``, from ``data``.

        Raises:
            InvalidArgument: There is neither, or the package is open for reading.
        """
        if self.package.mode == "r":
            raise InvalidArgument("the package is open for reading; open it with mode='a' to add files")
        if path is not None:
            self.package.write(path, arcname, compress_type=ZIP_DEFLATED)
        elif data is not None:
            self.package.writestr(arcname, data, compress_type=ZIP_DEFLATED)
        else:
            raise InvalidArgument(f"there is nothing to write as {arcname!r}; give a path or data")

    def close(self, save_to: str | os.PathLike[str] | None = None) -> bytes:
        """Finish the zip file and return it.

        Args:
            save_to: Where to write it as well.

        Raises:
            InvalidArgument: It was closed already.
        """
        self.package.close()
        self._package = None
        content = self._stream.getvalue()
        self._stream.close()
        if save_to is not None:
            Path(save_to).write_bytes(content)
        return content

    def __enter__(self) -> ZipPackage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._package is not None:
            self.close()
