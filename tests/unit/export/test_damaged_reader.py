"""Texts that are odd for a linear reader, and readers that are damaged: each is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.bundle import LINEAR, Bundle, sha256_of
from export.errors import BundleError
from export.linear import ARRAYS
from export.model import Model
from tests.helpers.tiny_readers import LABELS, MAX_LENGTH, SURE, UNSURE, Arrays, linear_arrays, tiny_bundle

ODD = {
    "of unknown tokens": "unheard of words",
    "of one unknown token": "unheard",
    "of one token": "cancel",
    "of no token": " ",
    "long": "w7 " * 33_333,
    "one word long": "x" * 100_000,
    "repeated": "cancel " * 20_000,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle"), providers="cpu")


def ids_of(model: Model, text: str) -> tuple[int, ...]:
    (encoded,) = model.encoder.encode([text])
    return encoded.ids


def test_the_readers_of_a_text(model: Model) -> None:
    assert model.stages == ("linear", "encoder")
    for text, label in SURE.items():
        logits = model.early(ids_of(model, text))
        assert logits is not None
        assert LABELS[int(logits.argmax())] == label
    assert model.early(ids_of(model, UNSURE)) is None


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_an_odd_text_is_left_to_the_encoder(model: Model, text: str) -> None:
    ids = ids_of(model, text)
    assert len(ids) <= MAX_LENGTH
    assert model.early(ids) is None
    assert np.isfinite(model.run([ids])).all()


def test_an_answer_is_the_same_alone_and_among_128_texts(model: Model) -> None:
    texts = [*SURE, UNSURE, *ODD.values()] * 13
    together = model.predict(texts[:128])
    assert together.shape == (128, len(LABELS))
    for text, output in zip(texts, together, strict=False):
        np.testing.assert_array_equal(model.predict([text])[0], output)


def test_a_linear_reader_alone_answers(tmp_path: Path) -> None:
    model = Model.open(tiny_bundle(tmp_path / "alone", encoder=False, early=None))
    assert (model.stages, model.session, model.provider) == (("linear",), None, "numpy")
    texts = [*SURE, UNSURE, *ODD.values()]
    output = model.predict(texts)
    assert np.isfinite(output).all()
    assert [LABELS[i] for i in output[: len(SURE)].argmax(axis=1)] == list(SURE.values())
    np.testing.assert_array_equal(output, model.run([ids_of(model, text) for text in texts]))


Change = Callable[[Arrays], Arrays | None]


def replaced(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    return lambda arrays: {**arrays, name: change(arrays[name])}


def with_nan(array: NDArray[Any]) -> NDArray[Any]:
    damaged = array.copy()
    damaged.flat[-1] = np.nan
    return damaged


DAMAGES: dict[str, tuple[Change, str]] = {
    "fewer labels": (replaced("weights", lambda a: a[:, :-1]), "arrays have the shapes"),
    "more labels": (replaced("bias", lambda a: np.append(a, a[:1])), "arrays have the shapes"),
    "fewer weights": (replaced("weights", lambda a: a[:-1]), "arrays have the shapes"),
    "more keys": (replaced("keys", lambda a: np.append(a, a[-1] + 1)), "arrays have the shapes"),
    "a number instead of keys": (replaced("keys", lambda a: a[0]), "arrays have the shapes"),
    "no n-grams": (
        lambda arrays: {k: a if k == "bias" else a[:0] for k, a in arrays.items()},
        "arrays have the shapes|cannot be read",
    ),
    "unsorted": (replaced("keys", lambda a: a[::-1]), "its n-grams are not sorted"),
    "a key twice": (replaced("keys", lambda a: np.append(a[:1], a[:-1])), "its n-grams are not sorted"),
    "NaN among the weights": (replaced("weights", with_nan), "its weights are not finite"),
    "NaN in the bias": (replaced("bias", with_nan), "its weights are not finite"),
    "infinite idf": (replaced("idf", lambda a: a / np.float32(0)), "its weights are not finite"),
    "another type": (replaced("weights", lambda a: a.astype(np.float64)), "arrays have the types"),
    "another byte order": (replaced("keys", lambda a: a.astype(">i8")), "arrays have the types"),
    "objects": (replaced("idf", lambda a: a.astype(object)), "cannot be read"),
    "an array that is not listed": (lambda a: {k: v for k, v in a.items() if k != "idf"}, "lists no linear/idf.npy"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("change", "sentence"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("encoder", [True, False], ids=["two readers", "one"])
def test_a_reader_that_does_not_fit_is_refused(tmp_path: Path, encoder: bool, change: Change, sentence: str) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", encoder=encoder, arrays=change(linear_arrays()))
    with pytest.raises(BundleError, match=sentence) as error:
        Model.open(bundle, providers="cpu")
    assert str(error.value).endswith(".")
    assert str(tmp_path) in str(error.value)


def test_a_reader_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", tokenizer_sha256="0" * 64)
    with pytest.raises(BundleError, match="was trained with another tokenizer"):
        Model.open(bundle, providers="cpu")


@pytest.mark.parametrize("name", ARRAYS)
def test_a_file_that_is_missing_or_changed_is_refused(tmp_path: Path, name: str) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", encoder=False)
    file = bundle.path / LINEAR / f"{name}.npy"
    whole = file.read_bytes()
    for damaged in (whole[:-1], b"", whole[:60], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(BundleError, match=rf"the checksum of linear/{name}\.npy does not match"):
            Bundle.open(bundle.path)
    file.unlink()
    with pytest.raises(BundleError, match=rf"incomplete: linear/{name}\.npy is missing"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_file_that_was_damaged_before_its_checksum_is_refused(tmp_path: Path, name: str) -> None:
    """As by a disk that was full when the bundle was written."""
    bundle = tiny_bundle(tmp_path / "bundle", encoder=False)
    file, manifest = bundle.path / LINEAR / f"{name}.npy", bundle.path / "manifest.json"
    whole, listed = file.read_bytes(), manifest.read_text()
    checksum = sha256_of(file)
    for damaged in (b"", whole[:3], whole[:60], whole[:-1], b"PK\x03\x04" + whole, whole[:8] + b"\xff" * 120):
        file.write_bytes(damaged)
        manifest.write_text(listed.replace(checksum, sha256_of(file)))
        with pytest.raises(BundleError, match="cannot be read"):
            Model.open(Bundle.open(bundle.path))
