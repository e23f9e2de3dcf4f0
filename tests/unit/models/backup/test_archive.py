"""An archive that is damaged, foreign, hostile or newer is refused, before anything of it is used."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from models.backup.archive import ArchiveReader, ArchiveWriter, BackupError, Header, open_archive

HEADER = Header(flywheel="0.1.0", started=datetime(2026, 5, 1, tzinfo=UTC))
CONTENT = {"releases/intent.json": b"{}", "bundles/intent/1/model.onnx": b"m" * 5000, "secret": b"k" * 64}


def ignore(_: int) -> None:
    pass


def made(path: Path, content: dict[str, bytes] = CONTENT) -> Path:
    with path.open("wb") as file:
        writer = ArchiveWriter(file, HEADER)
        for name, value in content.items():
            writer.add_bytes(name, value, 0o640)
        writer.finish()
    return path


def extracted(archive: Path, folder: Path) -> dict[str, bytes]:
    with open_archive(archive) as reader:
        for number, name in enumerate(reader.files):
            reader.extract(name, folder / str(number), ignore)
        return {name: (folder / str(number)).read_bytes() for number, name in enumerate(reader.files)}


def test_what_was_added_comes_out(tmp_path: Path) -> None:
    archive = made(tmp_path / "a.tar")
    assert extracted(archive, tmp_path) == CONTENT
    with open_archive(archive) as reader:
        assert reader.header == HEADER
        assert reader.size == sum(map(len, CONTENT.values()))
    assert (tmp_path / "2").stat().st_mode & 0o777 == 0o640


def test_other_programs_unpack_it(tmp_path: Path) -> None:
    with tarfile.open(made(tmp_path / "a.tar")) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "secret").read_bytes() == CONTENT["secret"]


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    archive = made(tmp_path / "a.tar")
    whole = archive.read_bytes()
    for at in range(0, len(whole.rstrip(b"\0")), 512):  # the first byte of each header, and of each block of content
        changed = bytearray(whole)
        changed[at] ^= 1
        archive.write_bytes(changed)
        (tmp_path / str(at)).mkdir()
        with pytest.raises(BackupError):
            extracted(archive, tmp_path / str(at))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_an_archive_that_was_cut_off(tmp_path: Path, share: float) -> None:
    archive = made(tmp_path / "a.tar")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
    with pytest.raises(BackupError), open_archive(archive):
        pass


def test_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 500)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text", "text")
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as tar:
        tar.add(tmp_path / "text", "text")
    for name in ("text", "other.tar", "other.tgz"):
        with pytest.raises(BackupError, match="is not a backup of Flywheel"), open_archive(tmp_path / name):
            pass


def test_a_newer_format(tmp_path: Path) -> None:
    newer = HEADER.model_copy(update={"format": 2, "flywheel": "9.0"})
    with (tmp_path / "a.tar").open("wb") as file:
        ArchiveWriter(file, newer).finish()
    with pytest.raises(BackupError, match=r"format 2, made by Flywheel 9\.0"), open_archive(tmp_path / "a.tar"):
        pass


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"


def hard_link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.LNKTYPE, "flywheel-backup.json"


def device(info: tarfile.TarInfo) -> None:
    info.type = tarfile.CHRTYPE


def folder(info: tarfile.TarInfo) -> None:
    info.type = tarfile.DIRTYPE


def plain(info: tarfile.TarInfo) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("../outside", plain),
        ("/etc/cron.d/x", plain),
        ("bundles/../../outside", plain),
        ("bundles//x", plain),
        ("./x", plain),
        (".", plain),
        ("bundles/x", link),
        ("bundles/x", hard_link),
        ("bundles/x", device),
        ("bundles/x", folder),
    ],
)
def test_a_hostile_member(tmp_path: Path, name: str, change: Callable[[tarfile.TarInfo], None]) -> None:
    """Its index names it, with the right sum: only what it is gives it away."""
    content = b"" if change is not plain else b"x"
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        change(info)
        index = {"files": {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}}
        for member, data in (
            (tarfile.TarInfo("flywheel-backup.json"), HEADER.model_dump_json().encode()),
            (info, content),
            (tarfile.TarInfo("flywheel-backup-files.json"), orjson.dumps(index)),
        ):
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(BackupError, match=r"was not made by Flywheel|is damaged"), open_archive(tmp_path / "a.tar"):
        pass


def test_a_file_twice(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        writer = ArchiveWriter(file, HEADER)
        writer.add_bytes("secret", b"one", 0o600)
        writer.add_bytes("secret", b"two", 0o600)
        writer.finish()
    with pytest.raises(BackupError, match="twice"), open_archive(tmp_path / "a.tar"):
        pass


def test_a_link_at_the_target_is_not_followed(tmp_path: Path) -> None:
    archive = made(tmp_path / "a.tar")
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    with open_archive(archive) as reader, pytest.raises(FileExistsError):
        reader.extract("secret", tmp_path / "target", ignore)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_shrinks_or_goes_does_not_count(tmp_path: Path) -> None:
    kept, shrinking = tmp_path / "kept", tmp_path / "shrinking"
    kept.write_bytes(b"k" * 10)
    shrinking.write_bytes(b"s" * (3 << 20))

    def shrink(_: int) -> None:
        shrinking.write_bytes(b"")

    with (tmp_path / "a.tar").open("wb") as file:
        writer = ArchiveWriter(file, HEADER)
        assert writer.add("kept", kept, ignore)
        assert not writer.add("shrinking", shrinking, shrink)
        assert not writer.add("gone", tmp_path / "gone", ignore)
        writer.finish()
    (tmp_path / "out").mkdir()
    assert extracted(tmp_path / "a.tar", tmp_path / "out") == {"kept": b"k" * 10}


def test_files_of_a_forgotten_folder_do_not_count(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        writer = ArchiveWriter(file, HEADER)
        for name in ("bundles/intent/1/a", "bundles/intent/12/a", "bundles/intent/1/b"):
            writer.add_bytes(name, b"", 0o644)
        writer.forget("bundles/intent/1")
        writer.finish()
    with open_archive(tmp_path / "a.tar") as reader:
        assert isinstance(reader, ArchiveReader)
        assert set(reader.files) == {"bundles/intent/12/a"}
