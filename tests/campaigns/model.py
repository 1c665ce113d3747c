"""An adversarial file system: which folders may be there after a power cut, when only what was synced is sure.

Stricter than ext4 and XFS, whose journals keep names in order: here a name survives for sure only once its folder was
synced, and bytes only once their file was, as POSIX promises and no more. What was not synced may be there or not,
each operation for itself, names without bytes and bytes as zeros included. So a missing fsync of a folder shows,
which a cut on those two file systems need not show.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from campaigns.operations import Operation


@dataclass(eq=False)
class File:
    """One file: its bytes as the kernel has them, those on disk, and what a failed sync let go of, as ranges."""

    data: bytearray = field(default_factory=bytearray)
    disk: bytes = b""
    forgotten: list[tuple[int, int]] = field(default_factory=list)

    @property
    def dirty(self) -> bool:
        return self.disk != bytes(self.data)

    def sync(self) -> None:
        """All bytes reach the disk, but for those of a sync that failed: the kernel holds these for clean."""
        made = bytearray(self.data)
        for start, stop in self.forgotten:
            end = min(stop, len(made))
            made[start:end] = self.disk[start:end].ljust(max(end - start, 0), b"\0")
        self.disk = bytes(made)

    def fail_to_sync(self) -> None:
        """The kernel reports the failure once, and holds for clean what it could not write."""
        if len(self.data) > len(self.disk):
            self.forgotten.append((len(self.disk), len(self.data)))


@dataclass(eq=False)
class Folder:
    """One folder: its names as the kernel has them, and those on disk."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    disk: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(eq=False)
class _Move:
    """A change of names that is not yet on disk: what it takes away and what it puts there, as one."""

    kind: str
    takes: tuple[Folder, str] | None
    puts: tuple[Folder, str, File | Folder] | None

    def touches(self, folder: Folder) -> bool:
        return any(one is not None and one[0] is folder for one in (self.takes, self.puts))

    def carry_out(self) -> None:
        if self.takes is not None:
            self.takes[0].disk.pop(self.takes[1], None)
        if self.puts is not None:
            self.puts[0].disk[self.puts[1]] = self.puts[2]


Keeps = Callable[[str], float]


class Disk:
    """The folder below which operations are replayed, from a state that is wholly on disk."""

    def __init__(self, root: Path) -> None:
        self.root = _load(root)
        self._moves: list[_Move] = []

    def apply(self, operation: Operation) -> None:
        """Let one operation happen, as it did."""
        getattr(self, "_" + operation.kind)(operation)

    def after_cut(self, moves: Keeps, data: Callable[[File], bytes]) -> Folder:
        """A copy of what is on disk, where each unsynced move survives with the chance that `moves` gives its kind,
        and unsynced bytes are what `data` says; the draw is the caller's."""
        copies: dict[int, File | Folder] = {}
        tree = _copied(self.root, copies, data)
        for move in self._moves:
            if not moves(move.kind):
                continue
            takes = move.takes and (copies.get(id(move.takes[0])), move.takes[1])
            puts = move.puts and (copies.get(id(move.puts[0])), move.puts[1], _copy(move.puts[2], copies, data))
            if takes is not None and isinstance(takes[0], Folder):
                takes[0].disk.pop(takes[1], None)
            if puts is not None and isinstance(puts[0], Folder):
                puts[0].disk[puts[1]] = puts[2]
        return tree

    def _find(self, path: str) -> File | Folder:
        found: File | Folder = self.root
        for name in PurePosixPath(path).parts:
            assert isinstance(found, Folder), path
            found = found.names[name]
        return found

    def _file(self, path: str) -> File:
        found = self._find(path)
        assert isinstance(found, File), path
        return found

    def _parent(self, path: str) -> tuple[Folder, str]:
        pure = PurePosixPath(path)
        found = self._find(str(pure.parent))
        assert isinstance(found, Folder), path
        return found, pure.name

    def _change(
        self, kind: str, takes: tuple[Folder, str] | None, puts: tuple[Folder, str, File | Folder] | None
    ) -> None:
        if takes is not None:
            takes[0].names.pop(takes[1])
        if puts is not None:
            puts[0].names[puts[1]] = puts[2]
        self._moves.append(_Move(kind, takes, puts))

    def _create(self, operation: Operation) -> None:
        self._change("create", None, (*self._parent(operation.path), File()))

    def _link(self, operation: Operation) -> None:
        self._change("create", None, (*self._parent(operation.path), File(bytearray(operation.data))))

    def _mkdir(self, operation: Operation) -> None:
        self._change("create", None, (*self._parent(operation.path), Folder()))

    def _rename(self, operation: Operation) -> None:
        moved = self._find(operation.path)
        self._change("rename", self._parent(operation.path), (*self._parent(operation.to), moved))

    def _unlink(self, operation: Operation) -> None:
        self._change("remove", self._parent(operation.path), None)

    _rmdir = _unlink

    def _write(self, operation: Operation) -> None:
        data = self._file(operation.path).data
        data.extend(bytes(max(0, operation.at - len(data))))
        data[operation.at : operation.at + len(operation.data)] = operation.data

    _pwrite = _write

    def _truncate(self, operation: Operation) -> None:
        data = self._file(operation.path).data
        del data[operation.at :]
        data.extend(bytes(operation.at - len(data)))

    def _sync(self, operation: Operation) -> None:
        self._file(operation.path).sync()

    _datasync = _sync

    def _failedsync(self, operation: Operation) -> None:
        self._file(operation.path).fail_to_sync()

    def _syncdir(self, operation: Operation) -> None:
        folder = self._find(operation.path)
        assert isinstance(folder, Folder)
        for move in [move for move in self._moves if move.touches(folder)]:
            move.carry_out()
            self._moves.remove(move)


def _load(path: Path) -> Folder:
    folder = Folder()
    for inner in sorted(path.iterdir()):
        if inner.is_dir():
            folder.names[inner.name] = _load(inner)
        else:
            data = inner.read_bytes()
            folder.names[inner.name] = File(bytearray(data), data)
    folder.disk = dict(folder.names)
    return folder


def _copied(folder: Folder, copies: dict[int, File | Folder], data: Callable[[File], bytes]) -> Folder:
    made = Folder()
    copies[id(folder)] = made
    made.disk = {name: _copy(inner, copies, data) for name, inner in folder.disk.items()}
    return made


def _copy(one: File | Folder, copies: dict[int, File | Folder], data: Callable[[File], bytes]) -> File | Folder:
    known = copies.get(id(one))
    if known is not None:
        return known
    if isinstance(one, Folder):
        return _copied(one, copies, data)
    copies[id(one)] = made = File(disk=data(one) if one.dirty else one.disk)
    return made


def store(folder: Folder, path: Path) -> None:
    """Write what is on the disk of a tree into a real folder, which is new."""
    path.mkdir()
    for name, inner in folder.disk.items():
        if isinstance(inner, Folder):
            store(inner, path / name)
        else:
            (path / name).write_bytes(inner.disk)


def _none(file: File) -> bytes:
    return file.disk


def _all(file: File) -> bytes:
    return bytes(file.data)


def _zeros(file: File) -> bytes:
    return file.disk + bytes(max(0, len(file.data) - len(file.disk)))


def cuts(seed: int, draws: int) -> Iterator[tuple[str, Keeps, Callable[[File], bytes]]]:
    """The ways in which a power cut may go: the five extremes, then so many random ones."""
    yield "nothing unsynced survives", lambda _: 0, _none
    yield "everything survives", lambda _: 1, _all
    yield "names survive, bytes do not", lambda _: 1, _none
    yield "names survive, bytes are zeros", lambda _: 1, _zeros
    yield "removals survive, new names do not", lambda kind: kind == "remove", _none
    yield "renames survive, removals do not", lambda kind: kind != "remove", _none
    for number in range(draws):
        draw = random.Random(f"{seed}/{number}")
        yield f"drawn {seed}/{number}", lambda _, draw=draw: draw.random() < 0.5, _drawn(draw)  # type: ignore[misc]


def _drawn(draw: random.Random) -> Callable[[File], bytes]:
    def data(file: File) -> bytes:
        choice = draw.randrange(4)
        if choice == 0:
            return file.disk
        if choice == 1:
            return bytes(file.data)
        if choice == 2:
            return _zeros(file)
        # A part of what is new, as the kernel happened to write it back.
        size = draw.randint(min(len(file.disk), len(file.data)), max(len(file.disk), len(file.data)))
        return bytes(file.data[:size]) if len(file.data) >= len(file.disk) else file.disk[:size]

    return data


def replayed(root: Path, operations: Iterable[Operation]) -> Disk:
    """The disk after these operations upon what is in `root`."""
    disk = Disk(root)
    for operation in operations:
        disk.apply(operation)
    return disk
