"""Answer templates by intent and language, with slots: from a YAML file, checked whole.

A slot's value comes from the request's `slots`, else from the entities of the text, else from the defaults. A value is
put in as it is: braces in it are no slots.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from models.yaml_files import read

SLOT = r"^[a-z][a-z0-9_]{0,39}$"
MAX_SLOTS = 64
MAX_VALUE = 1000  # characters
_MAX_TEMPLATE = 10_000  # characters
_LANGUAGE = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"  # BCP 47, without its rarer forms
_MAX_NAMED = 10  # faults in one message


class AnswersError(Exception):
    """Raised when a file of answers cannot be used; the message names the file, the place and the remedy."""


def _text(value: Any) -> Any:
    """Numbers as they are written: `refund_days: 30`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def no_slot(value: str) -> str:
    """The value of a default. Raises ValueError for one with a slot in it, which could name itself."""
    if any(name is not None for name in _slots_or_nothing(value)):
        raise ValueError(f"{value!r:.60} names a slot. A default is put in as it is; write the value out")
    return value


def _slots_or_nothing(value: str) -> list[str | None]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(value)]
    except ValueError:  # a single brace is a brace
        return []


SlotName = Annotated[str, StringConstraints(strict=True, pattern=SLOT)]
SlotValue = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_VALUE)]
Default = Annotated[str, BeforeValidator(_text), StringConstraints(strict=True, min_length=1, max_length=MAX_VALUE)]
Language = Annotated[str, StringConstraints(strict=True, max_length=35, pattern=_LANGUAGE)]


class Template(NamedTuple):
    """A text with slots: `texts[0]`, the value of `slots[0]`, `texts[1]`, ... and one text more than slots."""

    texts: tuple[str, ...]
    slots: tuple[str, ...]

    def filled(self, values: Mapping[str, str]) -> Answer:
        """The text with the values; a slot without one stays as `{slot}`."""
        if not self.slots:
            return Answer(self.texts[0], ())
        parts: list[str] = []
        missing: list[str] = []
        for text, slot in zip(self.texts, self.slots, strict=False):  # the last text follows
            value = values.get(slot)
            if value is None:
                value = f"{{{slot}}}"
                if slot not in missing:
                    missing.append(slot)
            parts += (text, value)
        return Answer("".join((*parts, self.texts[-1])), tuple(missing))


class Answer(NamedTuple):
    text: str
    missing: tuple[str, ...]
    """the slots that have no value, in order"""


@dataclass(frozen=True, eq=False)
class Answers:
    """The templates of a file. Instances are valid and can be pickled."""

    templates: Mapping[str, Mapping[str, tuple[Template, ...]]]
    """by label, and by language in lower case; the first language is that of requests that name none"""
    slots: Mapping[str, str]
    """what requests or defaults give, beside entities: the meaning by name"""
    defaults: Mapping[str, str]
    source: str
    """the file, for messages"""

    def __contains__(self, label: object) -> bool:
        return label in self.templates

    def with_defaults(self, defaults: Mapping[str, str]) -> Answers:
        """These answers with further defaults, which win over those of the file."""
        return replace(self, defaults={**self.defaults, **defaults})

    def answer(self, label: str, text: str, given: Mapping[str, str], language: str | None = None) -> Answer:
        """The answer to a text with this label, which must have a template.

        Of the variants the one that lacks fewest slots counts, then the one that uses most of the `given` values, which
        are the request's and the text's own; among equals the text decides, so that a text always has the same answer.
        """
        answers = self._best(label, language, given) if given else _best_without(self, label, language)
        if len(answers) == 1:
            return answers[0]
        return answers[zlib.crc32(text.encode("utf-8", "surrogatepass")) % len(answers)]

    def _best(self, label: str, language: str | None, given: Mapping[str, str]) -> tuple[Answer, ...]:
        """The filled variants that are equally good."""
        variants = self._variants(label, language)
        values = {**self.defaults, **given}
        if len(variants) > 1:
            ranked = [_rank(one, values, given) for one in variants]
            best = min(ranked)
            variants = [one for one, rank in zip(variants, ranked, strict=True) if rank == best]
        return tuple(one.filled(values) for one in variants)

    def _variants(self, label: str, language: str | None) -> Sequence[Template]:
        """By RFC 4647's lookup: `de-AT`, then `de`, then the first language."""
        by_language = self.templates[label]
        tag = (language or "").lower()
        while tag:
            if tag in by_language:
                return by_language[tag]
            tag = tag.rpartition("-")[0]
        return next(iter(by_language.values()))

    def unknown_slots(self, known: set[str]) -> Iterator[str]:
        """A sentence for each slot of a template that neither a request, an entity nor a default can fill."""
        for label, by_language in self.templates.items():
            for variants in by_language.values():
                for slot in dict.fromkeys(slot for one in variants for slot in one.slots):
                    if slot not in known and slot not in self.slots and slot not in self.defaults:
                        yield (
                            f"{self.source}: answers.{label} has the slot {{{slot}}}, which is no type of entity and "
                            f"has no default; name it under `slots` if requests give it"
                        )


@lru_cache(maxsize=1024)
def _best_without(answers: Answers, label: str, language: str | None) -> tuple[Answer, ...]:
    """The best answers to a text that gives nothing, as most do."""
    return answers._best(label, language, {})


def _rank(template: Template, values: Mapping[str, str], given: Mapping[str, str]) -> tuple[int, int]:
    """The lower, the better: slots without a value; then, negated, slots that the request or its text fills."""
    lacking = filled = 0
    for slot in template.slots:
        if slot in given:
            filled += 1
        elif slot not in values:
            lacking += 1
    return lacking, -filled


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _by_language(value: Any) -> Any:
    return value if isinstance(value, dict) else {"": value}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Language = Field("en", description="of the answers that name none")
    slots: dict[SlotName, str] = Field({}, max_length=1000)
    defaults: dict[SlotName, Default] = Field({}, max_length=1000)
    answers: dict[
        Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100)],
        Annotated[
            dict[
                Annotated[str, StringConstraints(pattern=rf"^$|{_LANGUAGE}")],
                Annotated[
                    tuple[Annotated[str, StringConstraints(strict=True, max_length=_MAX_TEMPLATE)], ...],
                    BeforeValidator(_listed),
                    Field(min_length=1, max_length=100),
                ],
            ],
            BeforeValidator(_by_language),
            Field(min_length=1),
        ],
    ] = Field(min_length=1)

    @field_validator("defaults")
    @classmethod
    def _no_slots(cls, defaults: dict[str, str]) -> dict[str, str]:
        for name, value in defaults.items():
            try:
                no_slot(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return defaults


def read_answers(path: Path) -> Answers:
    """The answers of a file. Raises AnswersError, which lists up to ten faults, each with its key."""
    content = read(path, AnswersError, "answers")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        shown = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:_MAX_NAMED]]
        raise AnswersError("\n".join(f"{path}: {sentence}" for sentence in shown)) from error
    faults: list[str] = []
    templates: dict[str, dict[str, tuple[Template, ...]]] = {}
    for label, by_language in file.answers.items():
        for language, variants in by_language.items():
            where = f"{path}: answers.{label}"
            made = [_template(text, where, faults) for text in variants]
            tag = (language or file.language).lower()
            templates.setdefault(label, {})[tag] = tuple(one for one in made if one is not None)
    if faults:
        raise AnswersError("\n".join(faults[:_MAX_NAMED]))
    return Answers(templates, file.slots, file.defaults, str(path))


@cache
def package_answers() -> Answers:
    """The answers that are served where the configuration names no file."""
    with as_file(files("models.data") / "seed" / "answers.yaml") as path:
        return read_answers(path)


def _template(text: str, where: str, faults: list[str]) -> Template | None:
    if not text.strip():
        faults.append(f"{where}: has an empty answer. Write it, or remove the line")
        return None
    texts, slots = [""], list[str]()
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            texts[-1] += literal
            if name is None:
                continue
            _check_slot(name, form, conversion)
            slots.append(name)
            texts.append("")
    except ValueError as error:
        faults.append(f"{where}: {text!r:.60}: {error}. A slot is {{name}}; write {{{{ and }}}} for braces")
        return None
    return Template(tuple(texts), tuple(slots))


def _check_slot(name: str, form: str | None, conversion: str | None) -> None:
    valid = name[:1].isalpha() and name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    if not valid or len(name) > 40 or form or conversion:
        shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        raise ValueError(f"{{{shown}}} is no slot: small letters, digits and underscores, at most 40")
