"""A disk of a test's own that can be filled, frozen and taken away: an ext4 file system in a file, or a stand-in."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_BALLAST = "ballast"


class Disk:
    """A file system at `path`. Needs root, and a machine that lends loop devices: see `own_disk` and `own_memory`."""

    def __init__(self, path: Path, *device: str):
        self.path, self._device = path, device

    def mount(self) -> None:
        _run("mount", *self._device, str(self.path))

    def take_away(self) -> None:
        """As a disk that is pulled out: its path is an empty folder. Open files stay open."""
        _run("umount", "-l", str(self.path))

    def freeze(self) -> None:
        """Writes hang until `thaw`."""
        _run("fsfreeze", "-f", str(self.path))

    def thaw(self) -> None:
        _run("fsfreeze", "-u", str(self.path))

    def fill(self) -> None:
        """Use every block."""
        with (self.path / _BALLAST).open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def make_room(self) -> None:
        (self.path / _BALLAST).unlink()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def own_disk(folder: Path, megabytes: int) -> Iterator[Disk | None]:
    """A disk mounted below `folder`; None where this machine lets nobody mount one."""
    image, path = folder / "image", folder / "disk"
    path.mkdir(parents=True)
    with ExitStack() as stack:
        try:
            with image.open("wb") as file:
                file.truncate(megabytes << 20)
            stack.callback(image.unlink)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
            device = _run("losetup", "--find", "--show", str(image))
            stack.callback(_run, "losetup", "--detach", device)
        except OSError:
            yield None
            return
        yield stack.enter_context(_mounted(Disk(path, device)))


@contextmanager
def own_memory(path: Path, megabytes: int) -> Iterator[Disk | None]:
    """A tmpfs mounted at `path`; it can be filled, but not frozen. None where this machine lets nobody mount one."""
    path.mkdir(parents=True)
    with _mounted(Disk(path, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")) as disk:
        yield disk


@contextmanager
def _mounted(disk: Disk) -> Iterator[Disk | None]:
    try:
        disk.mount()
    except OSError:
        yield None
        return
    try:
        yield disk
    finally:
        _tried(disk.thaw)  # a frozen disk cannot be taken away
        _tried(disk.take_away)


def _tried(undo: Callable[[], None]) -> None:
    with suppress(OSError):  # it is thawed, or taken away, already
        undo()


@contextmanager
def limited_files(pids: Callable[[], list[int]], size: int) -> Iterator[None]:
    """No process writes beyond `size` bytes of a file, as if the disk were full: for machines without `Disk`."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids()}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            if os.path.exists(f"/proc/{pid}"):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """In this block nobody can write in `folder`. Yields False where this machine does not let root be refused."""
    if os.getuid() != 0:
        folder.chmod(0o555)
        try:
            yield True
        finally:
            folder.chmod(0o755)
        return
    try:
        _run("mount", "--bind", str(folder), str(folder))
    except OSError:
        yield False
        return
    try:
        _run("mount", "-o", "remount,ro,bind", str(folder))
        yield True
    finally:
        _run("umount", str(folder))
