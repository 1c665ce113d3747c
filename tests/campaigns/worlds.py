"""What a crash leaves of a folder: all of it after a kill; after a power cut on a real file system, what was synced."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from campaigns.children import die

_SHUTDOWN = 0x8004587D  # the same request on ext4 and XFS
NOTHING_MORE, NAMES_TOO = 2, 1
_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE, _AUTOCLEAR = 0x4C0A, 0x4C82, 4
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MS_NOATIME = 0x20000, 16384, 1 << 18, 1024
_MS_RDONLY, _MS_REMOUNT, _MNT_DETACH = 1, 32, 2
_SIZES_MIB = {"ext4": 64, "xfs": 512}
# Not to write anything early on its own account: what is not synced is to be lost.
_OPTIONS = {"ext4": "noauto_da_alloc,commit=300", "xfs": ""}
_libc = ctypes.CDLL(None, use_errno=True)


class Killed:
    """A process is killed and the machine goes on: whatever it wrote is there."""

    name = "kill"
    moments = ("before", "half", "after")
    power = False

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"

    @property
    def end(self) -> Callable[[], None]:
        """How a child ends."""
        return die

    def settle(self) -> None:
        """Bring the machine up again after a crash."""

    def sync(self) -> None:
        """Have everything on disk."""

    def clear(self) -> None:
        """An empty root."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)

    def save(self, to: Path) -> None:
        """Keep the root as it is, elsewhere."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.root, to, symlinks=True)

    def restore(self, saved: Path) -> None:
        """The root as it was saved, and on disk."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(saved, self.root, symlinks=True)
        self.sync()


class PowerCut(Killed):
    """The power goes: a file system on a loop device is shut down, unmounted and mounted again.

    With `flag` NOTHING_MORE all that was not synced is lost; with NAMES_TOO the journal gets to the disk, so that new
    names and removals are there although the bytes behind them were never written.
    """

    moments = ("after",)
    power = True

    def __init__(self, folder: Path, file_system: str, flag: int) -> None:
        self.name = f"{file_system}, {'names survive' if flag == NAMES_TOO else 'nothing unsynced survives'}"
        self._mount = folder / "mount"
        self._type, self._flag = file_system, flag
        super().__init__(self._mount)
        self._image = folder / "disk"
        self._mount.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(_SIZES_MIB[file_system] * 1024**2)
        quiet = ["-q", "-F"] if file_system == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{file_system}", *quiet, self._image], check=True, capture_output=True)
        self._device, self._loop = _loop(self._image)
        self._up()
        self.root = self._mount / "root"
        self.root.mkdir()

    @property
    def end(self) -> Callable[[], None]:
        """The power is gone before the process can do anything more."""

        def power_off() -> None:
            self._power_off()
            die()

        return power_off

    def settle(self) -> None:
        """Bring it up again; the journal is replayed. The power goes now if it is not gone yet."""
        self._power_off()
        self._down()
        self._up()

    def sync(self) -> None:
        descriptor = os.open(self._mount, os.O_RDONLY)
        try:
            if _libc.syncfs(descriptor):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        super().clear()
        self.sync()

    def close(self) -> None:
        """Unmount; the loop device goes by itself."""
        self._down()
        os.close(self._device)
        self._image.unlink()

    def _power_off(self) -> None:
        try:
            descriptor = os.open(self._mount, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EIO:
                return  # it is off already
            raise
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", self._flag))
        finally:
            os.close(descriptor)

    def _up(self) -> None:
        options = _OPTIONS[self._type].encode()
        if _libc.mount(self._loop.encode(), bytes(self._mount), self._type.encode(), _MS_NOATIME, options):
            number = ctypes.get_errno()
            raise OSError(number, f"mount {self._type}: {os.strerror(number)}")

    def _down(self) -> None:
        if _libc.umount2(bytes(self._mount), 0):
            number = ctypes.get_errno()
            raise OSError(number, f"umount: {os.strerror(number)}")


def _loop(image: Path) -> tuple[int, str]:
    """A loop device over an image, which goes with the last process that has it open."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    name = f"/dev/loop{number}"
    device, file = os.open(name, os.O_RDWR | os.O_CLOEXEC), os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        # struct loop_config: fd, block size, struct loop_info64 (whose flags lie at 52), 8 words reserved.
        info = bytearray(232)
        struct.pack_into("I", info, 52, _AUTOCLEAR)
        fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(struct.pack("II", file, 0) + info + bytes(64)))
    finally:
        os.close(file)
    return device, name


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Callable[..., None]]:
    """A file system in memory of so many bytes over a folder; what is yielded sets another size, or read_only."""

    def mount(size: int, *, read_only: bool = False, flags: int = _MS_REMOUNT) -> None:
        flags |= _MS_RDONLY if read_only else 0
        if _libc.mount(b"tmpfs", bytes(folder), b"tmpfs", flags, f"size={size}".encode()):
            number = ctypes.get_errno()
            raise OSError(number, f"mount tmpfs: {os.strerror(number)}")

    mount(size, flags=0)
    try:
        yield mount
    finally:
        _libc.umount2(bytes(folder), _MNT_DETACH)


def alone() -> None:
    """Take this process into a mount namespace of its own: its mounts end with it. Raises OSError without root."""
    if _libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise PermissionError(number, f"unshare: {os.strerror(number)}")
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount --make-rprivate: {os.strerror(number)}")


def why_not(file_system: str) -> str:
    """Why this machine cannot cut the power of such a file system; empty when it can."""
    if os.geteuid():
        return "needs root"
    if shutil.which(f"mkfs.{file_system}") is None:
        return f"mkfs.{file_system} is not installed"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return ""


@contextmanager
def power(folder: Path, file_system: str, flag: int) -> Iterator[PowerCut]:
    """A file system whose power can be cut."""
    folder.mkdir(parents=True, exist_ok=True)
    world = PowerCut(folder, file_system, flag)
    try:
        yield world
    finally:
        world.close()
