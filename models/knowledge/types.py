"""Entries of the knowledge base, and what is found of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from models.text import same_text_key

MAX_ID = 200
MAX_QUESTION = 2_000
MAX_ANSWER = 20_000
"""characters"""
MAX_TAGS = 20
_MAX_TAG = 100
# What a URL's path and a shell take as it is; letters with combining marks must be composed ones.
_ID = re.compile(rf"[^\W_][\w.:@+-]{{0,{MAX_ID - 1}}}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_MAX_LANGUAGE = 35

_Text = Annotated[str, StringConstraints(strict=True)]


class Entry(BaseModel):
    """A question and its answer, as a client writes them: plain text, in which markup and instructions mean nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Text | None = Field(
        None, description="letters, digits and `-_.:@+`; default: made of the question and the language"
    )
    question: _Text = Field(max_length=MAX_QUESTION)
    answer: _Text = Field(max_length=MAX_ANSWER)
    language: _Text | None = Field(None, description="BCP 47", examples=["en"])
    tags: list[Annotated[str, StringConstraints(strict=True, max_length=_MAX_TAG)]] = Field([], max_length=MAX_TAGS)

    @field_validator("id")
    @classmethod
    def _check_id(cls, id_: str | None) -> str | None:
        if id_ is not None and not _ID.fullmatch(id_):
            raise ValueError(
                f"{id_[:40]!r} cannot be an id: it has 1 to {MAX_ID} letters, digits and -_.:@+, and begins with a "
                "letter or a digit"
            )
        return id_

    @field_validator("question", "answer")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not any(character.isprintable() and not character.isspace() for character in text):
            raise ValueError("is empty")
        return text

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str | None) -> str | None:
        return None if language is None else language_tag(language)

    @property
    def key(self) -> str:
        """Its id: the one it was given, or the one made of its question and language."""
        return self.id if self.id is not None else id_of(self.question, self.language)


def id_of(question: str, language: str | None) -> str:
    """The id of an entry without one: the same for the same question in the same language."""
    key = f"{primary_language(language)}\n{same_text_key(question)}"
    return "q-" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:20]


def language_tag(language: str) -> str:
    """The tag. Raises ValueError when it is not one of BCP 47's form."""
    if len(language) > _MAX_LANGUAGE or not _LANGUAGE.fullmatch(language):
        raise ValueError(f"{language[:40]!r} is not a language tag, such as en or pt-BR")
    return language


def primary_language(tag: str | None) -> str:
    """The language of a tag, without region and script, in lower case; "" for None."""
    return (tag or "").partition("-")[0].lower()


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry in the store. `serial` is another one after each change of the entry."""

    serial: int
    id: str
    question: str
    answer: str
    language: str | None
    tags: tuple[str, ...]
    at: datetime
    """when it was written last"""


class VectorOf(NamedTuple):
    """The vector of a stored entry, in fp16."""

    serial: int
    vector: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that is near a text. `similarity` is from 0 to 1."""

    id: str
    question: str
    answer: str
    similarity: float
