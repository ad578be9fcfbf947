"""Every change that AIPOD makes to a data path, one function per system call that matters.

Each announces itself to ``failpoint`` before it acts, so that a test can number the steps of an operation and end the
process at any of them. The rule that the callers keep: what a name points to is on the disk before the name is.

No error of the operating system leaves the store as it is: :func:`doing` is the one seam. Its sentences hold no path,
since they reach clients; the log has it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aipod.errors import AipodError, StorageError, StorageFull

__all__ = [
    "append_line",
    "check_room",
    "copy_tree",
    "create_dir",
    "doing",
    "exchange",
    "link",
    "remove",
    "remove_dir",
    "remove_tree",
    "rename",
    "sync_dir",
    "sync_tree",
    "temporary_name",
    "tree_bytes",
    "write_file",
    "write_in_place",
]

logger = logging.getLogger("aipod.store")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_COPY_BYTES = 8 * 1024 * 1024
# ioctl FICLONE, linux/fs.h: the target shares the source's blocks until one of them is written.
_FICLONE = 0x40049409
# renameat2(2): AT_FDCWD and RENAME_EXCHANGE.
_CWD, _RENAME_EXCHANGE = -100, 2


def _ignore(step: str) -> None:
    pass


failpoint: Callable[[str], None] = _ignore


def _announce(operation: str, path: Path) -> None:
    failpoint(f"{operation} {'/'.join(path.parts[-3:])}")


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn the operating system's refusals into ours.

    Args:
        what: Starts the sentence: ``"publishing version 'v1'"``.

    Raises:
        StorageFull: No room, or the quota is used up.
        StorageError: Anything else that was refused.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, AipodError):  # a deadline is a TimeoutError, and that is an OSError to Python
            raise
        logger.warning("%s: %s", what, error)
        if error.errno in _NO_ROOM:
            raise StorageFull(what, getattr(error, "missing_bytes", 0)) from None
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StorageError(what, f"{reason}; see to the data path, the server's log names the place") from None


def create_dir(path: Path) -> bool:
    """Make one directory; ``False`` if it is there already."""
    if path.is_dir():
        return False
    _announce("mkdir", path)
    path.mkdir(exist_ok=True)
    return True


def write_file(path: Path, data: bytes) -> None:
    """Give ``path`` this content, whole or not at all, also after a power cut once the caller has synced the directory.

    The temporary name is always the same: whoever writes a path holds what guards it, and a leftover is written over.
    """
    temporary = temporary_name(path)
    try:
        _announce("create", temporary)
        with temporary.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            _announce("write", temporary)
            file.write(data[len(data) // 2 :])
            file.flush()
            _announce("fsync", temporary)
            os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def write_in_place(path: Path, data: bytes) -> None:
    """Replace what a small locked file says, or make it empty; a reader must tolerate half of it."""
    _announce("write", path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def append_line(path: Path, line: bytes) -> None:
    """Add a line that ends in a newline, in one ``write``; a torn line before it is ended first."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o666)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    _announce("fsync", path)
    _sync(path, os.O_DIRECTORY)


def sync_tree(directory: Path) -> None:
    """Put every file and directory below, and the directory itself, on the disk."""
    for parent, directories, files in os.walk(directory):
        directories.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                _announce("fsync", path)
                _sync(path, os.O_NOFOLLOW)
        sync_dir(Path(parent))


def _sync(path: Path, flag: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems have no fsync for a directory; there is nothing to be had from them then.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    _announce("rename", target)
    os.replace(source, target)


def link(path: Path, text: str, temporary: Path) -> None:
    """Make ``path`` a symbolic link that says ``text``, or replace one, in one step for whoever looks."""
    remove(temporary)
    _announce("symlink", temporary)
    temporary.symlink_to(text)
    rename(temporary, path)


def exchange(first: Path, second: Path) -> bool:
    """Let two names swap what they point to, in one step; ``False`` where the system cannot, with nothing done."""
    call = _renameat2()
    if call is None:
        return False
    _announce("exchange", first)
    if call(_CWD, os.fsencode(first), _CWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(first))


@functools.lru_cache(maxsize=1)
def _renameat2() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def remove(path: Path) -> None:
    """Remove a file or a link; it may be gone already."""
    if os.path.lexists(path):
        _announce("unlink", path)
        path.unlink(missing_ok=True)


def remove_dir(path: Path) -> bool:
    """Remove an empty directory; ``False`` if it is not empty."""
    _announce("rmdir", path)
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def remove_tree(directory: Path) -> None:
    """Remove a directory and what is in it, following no link; somebody else may be removing it as well."""
    if directory.is_symlink():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    with suppress(FileNotFoundError):
        # A model may have made directories that it cannot write to any more.
        if not os.access(directory, os.W_OK | os.X_OK):
            directory.chmod(stat.S_IRWXU)
        with os.scandir(directory) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        for entry in children:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry))
            else:
                remove(Path(entry))
        remove_dir(directory)


def copy_tree(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> None:
    """Copy what is in ``source`` into the directory ``target``, sharing blocks where the file system can.

    Links are copied as links; sockets and pipes are left out. A full disk's error knows how much is missing.

    Args:
        skip: Names in ``source`` itself that stay behind.
    """
    try:
        _copy_into(source, target, skip)
    except OSError as error:
        if error.errno in _NO_ROOM:
            missing = tree_bytes(source) - tree_bytes(target) - shutil.disk_usage(target).free
            error.missing_bytes = max(0, missing)  # type: ignore[attr-defined]
        raise


def check_room(directory: Path, needed_bytes: int) -> None:
    """
    Raises:
        OSError: As a full disk's, which knows how much is missing: there is less room than that.
    """
    missing = needed_bytes - shutil.disk_usage(directory).free
    if missing > 0:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        error.missing_bytes = missing  # type: ignore[attr-defined]
        raise error


def _copy_into(source: Path, target: Path, skip: frozenset[str]) -> None:
    with os.scandir(source) as entries:
        children = sorted((entry for entry in entries if entry.name not in skip), key=lambda entry: entry.name)
    for entry in children:
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(os.readlink(entry))
        elif entry.is_dir():
            create_dir(copy)
            _copy_into(Path(entry), copy, frozenset())
            shutil.copystat(entry, copy)
        elif entry.is_file():
            _announce("copy", copy)
            _copy_file(Path(entry), copy)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        if not _clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, _COPY_BYTES)
    shutil.copystat(source, target)


def _clone(source: int, target: int) -> bool:
    import fcntl  # noqa: PLC0415 - a client imports this module too, where there may be no fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def tree_bytes(directory: Path) -> int:
    """The bytes of all regular files below."""
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            info = os.lstat(os.path.join(parent, name))
            total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return total
