"""A bundle is whole or refused: every kind of damage has a sentence that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from export.bundle import FORMAT, MANIFEST, MODEL, TOKENIZER, Bundle, write_bundle
from export.errors import BundleError
from models.tasks.base import all_tasks

Damage = Callable[[Path], object]


@pytest.fixture
def bundle(bundle_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the intent bundle, the one with assets, that a test may damage."""
    return Path(shutil.copytree(bundle_of("intent"), tmp_path / "bundle"))


def edit(path: Path, **changes: Any) -> None:
    """Set keys of the manifest; None removes the key."""
    manifest = json.loads((path / MANIFEST).read_text())
    manifest |= changes
    (path / MANIFEST).write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def edit_files(path: Path, **changes: str | None) -> None:
    """As `edit`, of the manifest's list of files; keys are spelled in `changes` as they are there."""
    files = json.loads((path / MANIFEST).read_text())["files"] | changes
    edit(path, files={name: digest for name, digest in files.items() if digest is not None})


def flip(file: Path, at: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("task", sorted(all_tasks()))
def test_a_trained_bundle_opens(task: str, bundle_of: Callable[[str], Path]) -> None:
    bundle = Bundle.open(str(bundle_of(task)))
    assert (bundle.manifest.task, bundle.manifest.kind) == (task, all_tasks()[task].kind)
    assert bundle.model_path.is_file()
    assert bundle.tokenizer_path.is_file()
    assert set(bundle.manifest.files) >= {MODEL, TOKENIZER}
    assert bundle.manifest.skips_padding
    assert bundle.asset("nothing-of-this-name") is None


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no directory": (shutil.rmtree, r"bundle is not a bundle: it has no manifest\.json"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), r"it has no manifest\.json"),
    "manifest not JSON": (lambda p: truncate(p / MANIFEST), r"manifest\.json is not JSON"),
    "manifest not UTF-8": (lambda p: (p / MANIFEST).write_bytes(b'{"\xff": 1}'), r"manifest\.json is not JSON"),
    "manifest empty": (lambda p: (p / MANIFEST).write_text(""), r"manifest\.json is not JSON"),
    "manifest a list": (lambda p: (p / MANIFEST).write_text("[]"), r"manifest\.json, the whole file: "),
    "a field missing": (lambda p: edit(p, labels=None), r"manifest\.json, labels: Field required"),
    "a field too many": (lambda p: edit(p, colour="red"), r"manifest\.json, colour: Extra inputs"),
    "a field of another type": (lambda p: edit(p, max_length="long"), r"manifest\.json, max_length: "),
    "a field out of range": (lambda p: edit(p, precision="int4"), r"manifest\.json, precision: "),
    "format missing": (lambda p: edit(p, format=None), r"manifest\.json, format: Field required"),
    "a newer format": (
        lambda p: edit(p, format=FORMAT + 1),
        rf"format {FORMAT + 1}; .* reads up to {FORMAT}\. Upgrade",
    ),
    "a newer format, other fields": (lambda p: edit(p, format=9, labels=None, shards=4), r"format 9; .*Upgrade"),
    "no model": (lambda p: (p / MODEL).unlink(), r"incomplete: model\.onnx is missing"),
    "no tokenizer": (lambda p: (p / TOKENIZER).unlink(), r"incomplete: tokenizer\.json is missing"),
    "no asset": (lambda p: shutil.rmtree(p / "assets"), r"incomplete: assets/known_questions\.json is missing"),
    "model a directory": (lambda p: ((p / MODEL).unlink(), (p / MODEL).mkdir()), r"model\.onnx is missing"),
    "model not listed": (lambda p: edit_files(p, **{MODEL: None}), r"its manifest lists no model\.onnx"),
    "tokenizer not listed": (lambda p: edit_files(p, **{TOKENIZER: None}), r"its manifest lists no tokenizer\.json"),
    "first byte of the model": (lambda p: flip(p / MODEL, 0), r"checksum of model\.onnx"),
    "last byte of the model": (lambda p: flip(p / MODEL), r"checksum of model\.onnx"),
    "model truncated": (lambda p: truncate(p / MODEL), r"checksum of model\.onnx"),
    "model empty": (lambda p: (p / MODEL).write_bytes(b""), r"checksum of model\.onnx"),
    "tokenizer truncated": (lambda p: truncate(p / TOKENIZER), r"checksum of tokenizer\.json"),
    "asset changed": (
        lambda p: flip(p / "assets" / "known_questions.json"),
        r"checksum of assets/known_questions\.json",
    ),
    "path above the bundle": (lambda p: edit_files(p, **{"../x": "0" * 64}), r"points outside it \(\.\./x\)"),
    "absolute path": (lambda p: edit_files(p, **{"/etc/hostname": "0" * 64}), r"outside it \(/etc/hostname\)"),
    "model a link to elsewhere": (
        lambda p: ((p / MODEL).rename(p.parent / "m"), (p / MODEL).symlink_to(p.parent / "m")),
        r"points outside it \(model\.onnx\)",
    ),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_bundle_is_refused(damage: Damage, sentence: str, bundle: Path) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=sentence) as caught:
        Bundle.open(bundle)
    assert str(bundle) in str(caught.value)
    assert str(caught.value).endswith(".")


def copy_of(source: Path, out: Path, **changes: Any) -> Bundle:
    """`write_bundle` with what is in `source`."""
    manifest = Bundle.open(source).manifest
    fields = manifest.model_dump(exclude={"format", "files", "has_encoder"}) | changes
    return write_bundle(
        out, model=source / MODEL, tokenizer=source / TOKENIZER, fields=fields, assets={"answers": {"a": "b"}}
    )


def test_what_is_written_opens_and_is_the_same(bundle: Path, tmp_path: Path) -> None:
    written = copy_of(bundle, tmp_path / "deep" / "down" / "copy")
    assert written.manifest == Bundle.open(written.path).manifest
    assert written.manifest.files[MODEL] == Bundle.open(bundle).manifest.files[MODEL]
    assert written.asset("answers") == {"a": "b"}
    assert [p.name for p in written.path.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["directory", "file"])
def test_an_existing_path_is_never_overwritten(make: Callable[[Path], None], bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    with pytest.raises(FileExistsError, match=r"out exists; a bundle is never changed in place"):
        copy_of(bundle, out)
    assert out.is_file() or not any(out.iterdir())


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"precision": "int4"}, ValidationError), ({"data": {"x": object()}}, TypeError)],
    ids=["fields refused", "fields not JSON"],
)
def test_a_failed_write_leaves_nothing(
    changes: dict[str, Any], error: type[Exception], bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        copy_of(bundle, tmp_path / "new" / "out", **changes)
    assert not any((tmp_path / "new").iterdir())


def test_a_missing_model_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    fields = Bundle.open(bundle).manifest.model_dump(exclude={"format", "files", "has_encoder"})
    with pytest.raises(FileNotFoundError):
        write_bundle(
            tmp_path / "new" / "out", model=tmp_path / "no", tokenizer=bundle / TOKENIZER, fields=fields, assets={}
        )
    assert not any((tmp_path / "new").iterdir())
