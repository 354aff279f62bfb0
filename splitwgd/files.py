"""The hand on files of the system's: reads a place as a state, and puts another one there whole, or not at all.

All below one root directory, which is a temporary one in tests. Symlinks in the last component are never followed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress

from splitwgd.changes import Directory, File, State, Symlink
from splitwgd.errors import MachineError

NEW = ".splitwg-new"  # behind the name of what is being written
_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EROFS: "mount that file system so that it can be written",
    errno.EACCES: "run as root",
    errno.EPERM: "run as root; if you are, look with lsattr whether it is immutable (chattr -i)",
    errno.EBUSY: "it is a mount of its own, as container engines make them; unmount it",
    errno.ENOTDIR: "move away what is in its place",
    errno.EISDIR: "move away what is in its place",
    errno.EEXIST: "move away what is in its place",
}


class Tree:
    """The files below a root directory; paths are as they are on a running system."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def real(self, path: str) -> str:
        """Where a path of the system's is for us."""
        return os.path.join(self.root, path.lstrip("/"))

    # -- reading

    def read(self, path: str) -> State:
        """What is there. Raises MachineError where it cannot be said, or is nothing that we can put back."""
        real = self.real(path)
        try:
            found = os.lstat(real)
            if stat.S_ISLNK(found.st_mode):
                return Symlink(os.readlink(real), found.st_mtime_ns)
            if stat.S_ISDIR(found.st_mode):
                return Directory(stat.S_IMODE(found.st_mode))
            if stat.S_ISREG(found.st_mode):
                return self._file(real, found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MachineError(f"{path} cannot be read ({error.strerror}); run as root") from error
        raise MachineError(f"{path} is neither a file nor a symlink; move it away")

    def _file(self, real: str, found: os.stat_result) -> File:
        with open(real, "rb") as file:
            data = file.read()
        attributes = []
        with suppress(OSError):  # this file system knows none
            attributes = [(name, os.getxattr(real, name)) for name in os.listxattr(real)]
        return File(data, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, tuple(attributes))

    def text(self, path: str) -> str:
        """What a reader finds who follows symlinks; nothing where there is nothing to read."""
        try:
            with open(self.real(self.target(path)), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def target(self, path: str) -> str:
        """Where a path leads in the end, as the system has it."""
        for _ in range(8):
            try:
                path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(self.real(path))))
            except OSError:
                break
        return path

    def exists(self, path: str) -> bool:
        """Whether anything is there."""
        return os.path.lexists(self.real(path))

    # -- writing

    def put(self, path: str, state: State) -> None:
        """Makes it so, at once for whoever looks, and on the disk. Raises MachineError, and then nothing changed."""
        real = self.real(path)
        new = _in_progress(real)
        try:
            match state:
                case None:
                    self._remove(real)
                case Directory():
                    if not os.path.isdir(real):
                        os.mkdir(real)
                        os.chmod(real, state.mode)
                case Symlink():
                    with suppress(FileNotFoundError):
                        os.unlink(new)
                    os.symlink(state.target, new)
                    _stamp(new, state.mtime)
                    os.replace(new, real)
                case File():
                    _write(new, state)
                    os.replace(new, real)
            if state is not None or os.path.isdir(os.path.dirname(real)):
                _sync(os.path.dirname(real))
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "look at the file system")
            raise MachineError(f"{path} cannot be written ({error.strerror}); {remedy}") from error
        finally:  # also where Ctrl-C came in the middle
            self.sweep(path)

    def _remove(self, real: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.isdir(real) and not os.path.islink(real):
                with suppress(OSError):  # somebody else keeps something in it
                    os.rmdir(real)
            else:
                os.unlink(real)

    def sweep(self, path: str) -> None:
        """Removes what was half written when we were killed."""
        with suppress(OSError):
            os.unlink(_in_progress(self.real(path)))

    def move(self, path: str, to: str) -> None:
        """Gives it another name, instead of what may have it already."""
        try:
            os.replace(self.real(path), self.real(to))
        except OSError as error:
            raise MachineError(f"{path} cannot be moved to {to} ({error.strerror}); move it yourself") from error

    def remove_all(self, path: str) -> None:
        """Removes a directory of ours with all that is in it."""
        real = self.real(path)
        if os.path.islink(real):
            os.unlink(real)
        else:
            shutil.rmtree(real, ignore_errors=True)


def _in_progress(real: str) -> str:
    return os.path.join(os.path.dirname(real), f".{os.path.basename(real)}{NEW}")


def _write(new: str, state: File) -> None:
    with suppress(FileNotFoundError):
        os.unlink(new)
    # Nobody may read it before its owner and mode are right.
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(state.data)
        file.flush()
        if (state.uid, state.gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, state.uid, state.gid)
        os.fchmod(handle, state.mode)
        for name, value in state.attributes:
            with suppress(OSError):  # a label that this policy does not let us give
                os.setxattr(handle, name, value)
        os.fsync(handle)
    _stamp(new, state.mtime)


def _stamp(path: str, mtime: int | None) -> None:
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
