"""The archive: an uncompressed tar, with what it is first and the sha256 of every file last.

    flywheel-backup.json            `Header`
    bundles/intent/1/model.onnx ... the home's files, by their path in it
    flywheel-backup-files.json      `Index`; a tar that was cut off has none

Any tar program lists and unpacks it. A reader believes nothing that is in it: an archive may be damaged, or not ours.
docs/decisions/0053-backup.md
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

M = TypeVar("M", bound=BaseModel)

FORMAT = 1
_HEADER, _INDEX = "flywheel-backup.json", "flywheel-backup-files.json"
_MAX_JSON_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20

Advance = Callable[[int], None]
"""called with a number of bytes that have just been copied"""


class BackupError(Exception):
    """Raised when a backup cannot be made or restored; the text says why, and what to do."""


class Header(BaseModel):
    """What an archive is of."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    flywheel: str
    """the version that made it"""
    started: datetime
    """feedback that was accepted before is in it"""
    home_mode: int = 0o755
    """permissions of the home: those of its files may count on them"""
    small: bool = False
    """without old checkpoints and MLflow's artifacts"""
    store: Literal["sqlite", "postgresql"] = "sqlite"
    schema_revision: str | None = None
    """of the feedback store; None when there is none in the archive"""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: int = Field(ge=0)
    sha256: str


class _Index(BaseModel):
    files: dict[str, _File]


class ArchiveWriter:
    """Writes an archive to an open file. Raises OSError when the disk does not take it."""

    def __init__(self, file: IO[bytes], header: Header):
        self._tar = tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._files: dict[str, _File] = {}
        self._add_json(_HEADER, header)

    def add(self, name: str, path: Path, advance: Advance, mode: int | None = None) -> bool:
        """Add the file at `path` as `name`, with the permissions `mode` or its own.

        False when it is gone, or became shorter while it was read: then the archive does not count it.
        """
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            return False
        with opened as file:
            found = os.fstat(file.fileno())
            info = _info(name, found.st_size, stat.S_IMODE(found.st_mode) if mode is None else mode, found.st_mtime)
            source = _Hashed(file, advance)
            self._tar.addfile(info, cast("IO[bytes]", source))
        if source.is_short:
            return False
        self._files[name] = _File(size=info.size, sha256=source.sha256.hexdigest())
        return True

    def add_bytes(self, name: str, content: bytes, mode: int) -> None:
        """Add a file with this content as `name`."""
        self._tar.addfile(_info(name, len(content), mode), io.BytesIO(content))
        self._files[name] = _File(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def names(self) -> set[str]:
        """The files that count."""
        return set(self._files)

    def forget(self, folder: str) -> None:
        """Do not count the files below `folder`: it was deleted while it was copied."""
        self._files = {name: file for name, file in self._files.items() if not name.startswith(f"{folder}/")}

    def finish(self) -> None:
        """Write the index, without which the archive is incomplete."""
        self._add_json(_INDEX, _Index(files=self._files))
        self._tar.close()

    def _add_json(self, name: str, value: BaseModel) -> None:
        content = value.model_dump_json(indent=1).encode()
        self._tar.addfile(_info(name, len(content), 0o600), io.BytesIO(content))


class ArchiveReader:
    """An open archive whose header and index are sound. Its files are checked as they are read."""

    def __init__(self, path: Path, tar: tarfile.TarFile):
        """Raises BackupError for what is no archive of ours, is incomplete, unsafe or of a newer format."""
        self._path, self._tar = path, tar
        members = tar.getmembers()
        if not members or members[0].name != _HEADER:
            raise BackupError(f"{path} is not a backup of Flywheel.")
        raw = self._read_json(members[0])
        self.header = self._parsed(Header, raw)
        if self.header.format != FORMAT:
            raise BackupError(
                f"{path} has format {self.header.format}, made by Flywheel {self.header.flywheel}; this one reads "
                f"format {FORMAT}. Restore it with the Flywheel that made it."
            )
        if members[-1].name != _INDEX or len(members) < 2:
            raise BackupError(f"{path} is incomplete: its end is missing. Take another backup.")
        self.files = self._parsed(_Index, self._read_json(members[-1])).files
        self._members = {member.name: member for member in members[1:-1]}
        if len(self._members) != len(members) - 2:
            raise BackupError(f"{path} names a file twice. It is damaged, or was not made by Flywheel.")
        for name, file in self.files.items():
            self._check(name, file)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def extract(self, name: str, target: Path, advance: Advance) -> None:
        """Write the file `name` to `target`, which must not exist. Raises BackupError if it is damaged; OSError."""
        member = self._members[name]
        content = self._tar.extractfile(member)
        assert content is not None  # a regular file
        sha256 = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(target, flags, 0o600), "wb") as file:
            try:
                while chunk := content.read(_CHUNK_BYTES):
                    sha256.update(chunk)
                    file.write(chunk)
                    advance(len(chunk))
            except tarfile.ReadError as error:
                raise self._damaged(name) from error
            if sha256.hexdigest() != self.files[name].sha256:
                raise self._damaged(name)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), member.mode & 0o777)

    def _check(self, name: str, file: _File) -> None:
        """Refuse whatever a writer of ours never writes: links, devices, sparse files, paths out of the home."""
        member, path = self._members.get(name), PurePosixPath(name)
        if member is None or member.size != file.size:
            raise self._damaged(name)
        inside = not path.is_absolute() and str(path) == name and ".." not in path.parts and "\0" not in name
        if not inside or name == "." or member.type != tarfile.REGTYPE or member.sparse is not None:
            raise BackupError(f"{self._path} has {name!r}, which no backup has. It was not made by Flywheel.")

    def _read_json(self, member: tarfile.TarInfo) -> bytes:
        if member.type != tarfile.REGTYPE or member.size > _MAX_JSON_BYTES:
            raise BackupError(f"{self._path} is not a backup of Flywheel.")
        content = self._tar.extractfile(member)
        return content.read() if content is not None else b""

    def _parsed(self, model: type[M], raw: bytes) -> M:
        try:
            return model.model_validate_json(raw)
        except ValidationError as error:
            part = model.__name__.strip("_").lower()
            raise BackupError(f"{self._path} is damaged: its {part} cannot be read.") from error

    def _damaged(self, name: str) -> BackupError:
        return BackupError(f"{self._path} is damaged: {name} is not what was backed up. Take another backup.")


@contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """The archive at `path`. Raises BackupError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        with file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield ArchiveReader(path, tar)
    except tarfile.TarError as error:
        raise BackupError(f"{path} is not a backup of Flywheel, or is damaged: {error}.") from error


class _Hashed:
    """A file as `TarFile.addfile` reads it: hashed, and filled up with zeros if it ends early."""

    def __init__(self, file: IO[bytes], advance: Advance):
        self._file, self._advance = file, advance
        self.sha256 = hashlib.sha256()
        self.is_short = False

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._advance(size)
        self.sha256.update(chunk)
        if len(chunk) < size:
            self.is_short = True
        return chunk.ljust(size, b"\0")


def _info(name: str, size: int, mode: int, mtime: float = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, int(mtime)
    return info
