"""Opening what may be anything: a file is read only if it is a plain one, so that a pipe or device blocks nobody."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader


def open_plain(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> BufferedReader:
    """The plain file at `path`, opened for reading through no symbolic link; the caller closes it.

    Raises OSError: IsADirectoryError for a folder, and with ELOOP, ENXIO or EINVAL for what else is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
