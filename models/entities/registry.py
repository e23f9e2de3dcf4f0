"""The registry of entity types: the package's `registry.yaml`, and what a deployment's file adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from models.entities.types import EntitiesError
from models.entities.words import folded
from models.yaml_files import read

MAX_WORDS = 200_000
MAX_TYPES = 200
_MAX_PATTERNS = 200
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Gate = Literal["any", "digit", "hint", "long_word", "two_digits", "mixed", "numbers"]
"""what a text must have so that a search can find anything: models/entities/scan.py"""
TypeName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,39}$")]


def _listed(value: Any) -> Any:
    """A single text in place of a list, and numbers as they are written."""
    return [value] if isinstance(value, str | int | float | dict) and not isinstance(value, bool) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _pattern(value: Any) -> Any:
    return {"regex": value} if isinstance(value, str) else value


def _word(value: Any) -> Any:
    return value if isinstance(value, dict) else {"name": _text(value)}


def _valued(value: Any) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Replacement = Annotated[str, StringConstraints(pattern=r"^\[[a-z][a-z0-9_ ]{0,39}\]$")]
_Texts = Annotated[tuple[Annotated[str, BeforeValidator(_text)], ...], BeforeValidator(_listed)]


class Pattern(_Strict):
    """A regular expression of a type; registry.yaml describes the fields."""

    regex: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2000)]
    check: str | None = None
    near: bool | tuple[str, ...] = False
    within: Literal["text", "numbers"] = "text"
    needs: Gate = "any"
    hints: tuple[str, ...] = ()
    case: bool = False
    whole: bool = True
    group: str | None = None


class Word(_Strict):
    """A name in a list, and other names for it."""

    name: Annotated[str, BeforeValidator(_text), StringConstraints(strict=True, min_length=1, max_length=200)]
    aliases: _Texts = ()

    @model_validator(mode="after")
    def _has_letters(self) -> Word:
        for form in (self.name, *self.aliases):
            if len(folded(form.removesuffix("*"))) < 2:
                raise ValueError(f"{form!r:.40} has fewer than two letters or digits, and would be found everywhere")
        return self


_Words = Annotated[tuple[Annotated[Word, BeforeValidator(_word)], ...], BeforeValidator(_listed)]


class EntityType(_Strict):
    """A type of entities; registry.yaml describes the fields."""

    name: str = ""
    personal: bool = False
    answer: bool = False
    replacement: Replacement | None = None
    detectors: tuple[str, ...] = ()
    context: _Texts = ()
    patterns: Annotated[
        tuple[Annotated[Pattern, BeforeValidator(_pattern)], ...],
        BeforeValidator(_listed),
        Field(max_length=_MAX_PATTERNS),
    ] = ()
    words: _Words = ()
    moments: Annotated[dict[str, str | None], BeforeValidator(_valued)] = {}
    unless: tuple[str, ...] = ()
    extra: tuple[Pattern, ...] = ()
    """patterns of a deployment: RE2 searches them, so that they are linear whoever wrote them"""

    @property
    def placeholder(self) -> str:
        return self.replacement or f"[{self.name}]"


class _OwnPattern(_Strict):
    """A pattern of a deployment."""

    regex: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=500)]
    check: str | None = None
    near: bool = False


class _OwnType(_Strict):
    """What a deployment's file says about a type, a new one or one of the package's."""

    personal: bool | None = None
    answer: bool | None = None
    replacement: Replacement | None = None
    context: _Texts = ()
    patterns: Annotated[
        tuple[Annotated[_OwnPattern, BeforeValidator(_pattern)], ...],
        BeforeValidator(_listed),
        Field(max_length=_MAX_PATTERNS),
    ] = ()
    words: _Words = ()


class _OwnFile(_Strict):
    types: dict[TypeName, _OwnType] = Field(max_length=MAX_TYPES)
    day_first: bool | None = None


@dataclass(frozen=True, eq=False)
class Registry:
    """The types in order of rank. Instances are valid and can be pickled."""

    types: tuple[EntityType, ...]
    day_first: bool = True
    """whether 03/05/2026 is the third of May"""
    notes: tuple[str, ...] = ()
    """what is odd in the file, as sentences"""

    @property
    def personal(self) -> tuple[EntityType, ...]:
        return tuple(one for one in self.types if one.personal)

    @property
    def answered(self) -> tuple[str, ...]:
        """The names of the types that answers list."""
        return tuple(one.name for one in self.types if one.answer)


@cache
def package_registry() -> Registry:
    """The types of the package."""
    content = yaml.load(files("models.entities").joinpath("registry.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
    return Registry(tuple(EntityType(name=name, **(entry or {})) for name, entry in content["types"].items()))


def read_registry(path: Path) -> Registry:
    """The package's types with what the file adds. Raises EntitiesError."""
    content = read(path, EntitiesError, "entities")
    try:
        own = _OwnFile.model_validate(_with_word_files(content, path))
    except ValidationError as error:
        raise EntitiesError("\n".join(f"{path}: {sentence}" for sentence in _sentences(error))) from error
    if sum(len(entry.words) for entry in own.types.values()) > MAX_WORDS:
        raise EntitiesError(f"{path}: there are more than {MAX_WORDS:,} words. Leave out those that nobody writes.")
    base = package_registry()
    known = {one.name: one for one in base.types}
    for name, entry in own.types.items():
        known[name] = _joined(known.get(name), name, entry, path)
    day_first = base.day_first if own.day_first is None else own.day_first
    packaged = [one.name for one in base.types]
    # Own types first, so that a number with the shape of a customer's is no phone number.
    types = [known[name] for name in (*(name for name in own.types if name not in packaged), *packaged)]
    _check_together(types, path)
    return replace(base, types=tuple(types), day_first=day_first, notes=tuple(_notes(path, types)))


def _joined(base: EntityType | None, name: str, own: _OwnType, path: Path) -> EntityType:
    """The type as the package has it, with what the file says. A new type is answered unless the file says no."""
    if base is None and not (own.patterns or own.words):
        raise EntitiesError(f"{path}: types.{name}: is a new type, and needs patterns or words by which it is found.")
    if base is not None and base.personal and own.personal is False:
        raise EntitiesError(f"{path}: types.{name}.personal: what is {name} is always replaced in what is stored.")
    start = base or EntityType(name=name, answer=True)
    extra = tuple(Pattern(regex=one.regex, check=one.check, near=one.near) for one in own.patterns)
    for at, one in enumerate(extra):
        _check_pattern(one, f"{path}: types.{name}.patterns.{at}")
        if one.near and not (own.context or start.context):
            raise EntitiesError(f"{path}: types.{name}.patterns.{at}.near: the type has no context words to be near.")
    return start.model_copy(
        update={
            "personal": start.personal if own.personal is None else own.personal,
            "answer": start.answer if own.answer is None else own.answer,
            "replacement": own.replacement or start.replacement,
            "context": (*start.context, *own.context),
            "extra": (*start.extra, *extra),
            "words": (*start.words, *own.words),
        }
    )


def _check_pattern(pattern: Pattern, where: str) -> None:
    from models.entities.patterns import check_of, compile_linear

    try:
        found = compile_linear(pattern.regex)
    except ValueError as error:
        raise EntitiesError(f"{where}: {error}.") from error
    if found.search("") is not None:
        raise EntitiesError(
            f"{where}: {pattern.regex!r} is found in an empty text, and so everywhere. Ask for a character."
        )
    if pattern.check is not None:
        try:
            check_of(pattern.check)
        except ValueError as error:
            raise EntitiesError(f"{where}: {error}.") from error


def _check_together(types: Sequence[EntityType], path: Path) -> None:
    """Raises EntitiesError for patterns that are valid each by itself, and cannot be searched in one pass."""
    from models.entities.patterns import own_detector

    try:
        own_detector(types)
    except ValueError as error:
        raise EntitiesError(f"{path}: the patterns cannot be joined: {str(error)[-200:]}. Shorten them.") from error


def _with_word_files(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content, with lists of words in the place of the names of text files, one word a line."""
    types = content.get("types")
    if not isinstance(types, dict):
        return content
    return {**content, "types": {name: _with_words(entry, path) for name, entry in types.items()}}


def _with_words(entry: Any, path: Path) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("words"), str):
        return entry
    named = path.parent / entry["words"]
    try:
        lines = named.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EntitiesError(
            f"{path}: words: {named} cannot be read: {error}. Name a file with a word a line."
        ) from error
    return {**entry, "words": [line.strip() for line in lines if line.strip() and not line.startswith("#")]}


def _sentences(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10]]


def _notes(path: Path, types: Sequence[EntityType]) -> list[str]:
    owners: dict[str, str] = {}
    notes = []
    for one in types:
        for form in dict.fromkeys(folded(form) for word in one.words for form in (word.name, *word.aliases)):
            if form in owners and owners[form] != one.name:
                notes.append(f"{path}: {form!r} is a word of {owners[form]} and of {one.name}; it counts as the first.")
            owners.setdefault(form, one.name)
    return notes
