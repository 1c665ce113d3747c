"""A tap on everything that changes a folder: each operation is counted, and can be cut, failed or written down.

It sits below the recorder, at the functions of `os`, so that no operation escapes by not going through `durable`;
those that modules of the recorder have taken under names of their own are replaced there too. `escapes.py` holds
with strace that nothing changes the folder past it.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "fencepost_recorder"


@dataclass(frozen=True)
class Operation:
    """One operation on the folder. Paths are relative to it; `number` counts from 0.

    `kind` is create, link, write, pwrite, sync, datasync, syncdir, rename, unlink, mkdir, rmdir or truncate; `at` is
    the offset of a write, or the size that a truncation leaves. A link gives a file that had no name its first, and
    `data` is what was written to it before, when nobody could see it.
    """

    number: int
    kind: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int = 0


class Plan:
    """What happens at each operation; this one lets all pass."""

    def around(self, operation: Operation, call: Callable[[bytes | None], Any]) -> Any:
        """Carry the operation out by `call(None)`, or a write with other bytes by `call(bytes)`."""
        return call(None)


class Tap:
    """Puts a plan around every operation below `root`, in this process, for good: use it in a forked child."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root = str(root.resolve())
        self.plan = plan
        self.count = 0
        self._lock = threading.RLock()
        self._inside = threading.local()
        # Of a file that began without a name /proc goes on to say that it was removed.
        self._linked: dict[tuple[int, int], str] = {}

    def install(self) -> None:
        """From now on everything goes through the plan."""
        replaced = {getattr(os, name): make(getattr(os, name)) for name, make in self._wrappers().items()}
        for real, wrapper in replaced.items():
            setattr(os, real.__name__, wrapper)
        # os.remove is another object than os.unlink; both are in the table. Names taken by `from os import …`:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] != PACKAGE:
                continue
            for attribute, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in replaced:
                    setattr(module, attribute, replaced[value])

    def _wrappers(self) -> dict[str, Callable[[Any], Any]]:
        by_name: dict[str, Callable[[Any], Any]] = {
            "open": self._open,
            "write": self._write,
            "writev": self._writev,
            "pwrite": self._pwrite,
            "ftruncate": self._ftruncate,
            "truncate": self._truncate,
            "fsync": lambda real: self._sync(real, "sync"),
            "fdatasync": lambda real: self._sync(real, "datasync"),
            "mkdir": self._mkdir,
            "link": self._link,
            "rename": self._rename,
            "replace": self._rename,
            "unlink": lambda real: self._remove(real, "unlink"),
            "remove": lambda real: self._remove(real, "unlink"),
            "rmdir": lambda real: self._remove(real, "rmdir"),
        }
        unknown = ("symlink", "pwritev", "sendfile", "copy_file_range", "posix_fallocate", "mknod")
        return {**by_name, **dict.fromkeys(unknown, self._refused)}

    def _do(self, kind: str, path: str, call: Callable[[bytes | None], Any], **more: Any) -> Any:
        with self._lock:
            operation = Operation(self.count, kind, path, **more)
            self.count += 1
            return self.plan.around(operation, call)

    def _inner(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root, None for any other."""
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        text = os.path.normpath(os.path.join(os.getcwd(), text))
        return text[len(self.root) + 1 :] if text.startswith(self.root + "/") or text == self.root else None

    def _inner_of(self, descriptor: int) -> str | None:
        """The path of an open file below the root; None for another, and for one that was removed."""
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return None
        if name.endswith(" (deleted)"):
            return self._linked.get(_identity(descriptor))
        return self._inner(name)

    def _open(self, real: Any) -> Any:
        def wrapped(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            inner = self._inner(path, dir_fd) if flags & (os.O_CREAT | os.O_TRUNC) else None
            if inner is None:
                opened: int = real(path, flags, mode, dir_fd=dir_fd)
                return opened
            try:
                size = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_size
            except FileNotFoundError:
                size = None
            if size is None and flags & os.O_CREAT:
                return self._do("create", inner, lambda _: real(path, flags, mode, dir_fd=dir_fd))  # type: ignore[no-any-return]
            if size and flags & os.O_TRUNC:
                return self._do("truncate", inner, lambda _: real(path, flags, mode, dir_fd=dir_fd))  # type: ignore[no-any-return]
            return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[no-any-return]

        return wrapped

    def _write(self, real: Any) -> Any:
        def wrapped(descriptor: int, data: Any) -> Any:
            inner = self._inner_of(descriptor)
            if inner is None:
                return real(descriptor, data)
            whole = bytes(data)
            return self._do(
                "write",
                inner,
                lambda other: real(descriptor, whole if other is None else other),
                data=whole,
                at=_offset(descriptor),
            )

        return wrapped

    def _writev(self, real: Any) -> Any:
        def wrapped(descriptor: int, buffers: Any) -> Any:
            inner = self._inner_of(descriptor)
            if inner is None:
                return real(descriptor, buffers)
            whole = b"".join(bytes(one) for one in buffers)
            return self._do(
                "write",
                inner,
                lambda other: real(descriptor, [whole if other is None else other]),
                data=whole,
                at=_offset(descriptor),
            )

        return wrapped

    def _pwrite(self, real: Any) -> Any:
        def wrapped(descriptor: int, data: Any, offset: int) -> Any:
            inner = self._inner_of(descriptor)
            if inner is None:
                return real(descriptor, data, offset)
            whole = bytes(data)
            return self._do(
                "pwrite",
                inner,
                lambda other: real(descriptor, whole if other is None else other, offset),
                data=whole,
                at=offset,
            )

        return wrapped

    def _ftruncate(self, real: Any) -> Any:
        def wrapped(descriptor: int, size: int) -> Any:
            inner = self._inner_of(descriptor)
            if inner is None:
                return real(descriptor, size)
            return self._do("truncate", inner, lambda _: real(descriptor, size), at=size)

        return wrapped

    def _truncate(self, real: Any) -> Any:
        def wrapped(path: Any, size: int) -> Any:
            inner = self._inner_of(path) if isinstance(path, int) else self._inner(path)
            if inner is None:
                return real(path, size)
            return self._do("truncate", inner, lambda _: real(path, size), at=size)

        return wrapped

    def _sync(self, real: Any, kind: str) -> Any:
        def wrapped(descriptor: int) -> Any:
            inner = self._inner_of(descriptor)
            if inner is None:
                return real(descriptor)
            whole = "syncdir" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else kind
            return self._do(whole, inner, lambda _: real(descriptor))

        return wrapped

    def _mkdir(self, real: Any) -> Any:
        def wrapped(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> Any:
            inner = self._inner(path, dir_fd)
            if inner is None or os.path.lexists(path):
                return real(path, mode, dir_fd=dir_fd)
            return self._do("mkdir", inner, lambda _: real(path, mode, dir_fd=dir_fd))

        return wrapped

    def _link(self, real: Any) -> Any:
        def wrapped(source: Any, target: Any, *, src_dir_fd: int, **more: Any) -> Any:
            inner = self._inner(target)
            if inner is None:
                return real(source, target, src_dir_fd=src_dir_fd, **more)
            assert source == f"/proc/self/fd/{src_dir_fd}", "only a file without a name is given one"
            self._linked[_identity(src_dir_fd)] = inner
            data = os.pread(src_dir_fd, os.fstat(src_dir_fd).st_size, 0)
            try:
                self._do("link", inner, lambda _: real(source, target, src_dir_fd=src_dir_fd, **more), data=data)
            except OSError as error:
                raise OSError(error.errno, error.strerror, source, None, target) from error  # as the real one says it

        return wrapped

    def _rename(self, real: Any) -> Any:
        def wrapped(source: Any, target: Any, **more: Any) -> Any:
            one, other = self._inner(source, more.get("src_dir_fd")), self._inner(target, more.get("dst_dir_fd"))
            if one is None and other is None:
                return real(source, target, **more)
            if one is None or other is None:
                raise AssertionError(f"a rename across the edge of the folder: {source} to {target}")
            return self._do("rename", one, lambda _: real(source, target, **more), to=other)

        return wrapped

    def _remove(self, real: Any, kind: str) -> Any:
        def wrapped(path: Any, *, dir_fd: int | None = None) -> Any:
            inner = self._inner(path, dir_fd)
            if inner is None or not os.path.lexists(path):
                return real(path, dir_fd=dir_fd)
            return self._do(kind, inner, lambda _: real(path, dir_fd=dir_fd))

        return wrapped

    def _refused(self, real: Any) -> Any:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            raise AssertionError(f"os.{real.__name__} is not known to the campaigns: teach it to operations.py")

        return wrapped


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _offset(descriptor: int) -> int:
    """Where the next write(2) lands."""
    import fcntl

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
        return os.fstat(descriptor).st_size
    return os.lseek(descriptor, 0, os.SEEK_CUR)
