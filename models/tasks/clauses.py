"""The clauses of a text: where a customer may begin with another wish."""

from __future__ import annotations

import re
from typing import NamedTuple

# A text beyond these is a letter, of which the model reads only the beginning too.
MAX_CLAUSES = 8
_MAX_CHARACTERS = 1000

_SENTENCE_END = r"[.!?;…]+[\"'”’)\]]*(?=\s)|\n"  # not the point in 12.50
_CONJUNCTIONS = ("and", "but", "plus", "n", "additionally", "besides", "moreover", "furthermore")
_JOINT = re.compile(
    rf"(?P<sentence>(?<!\b\w)(?:{_SENTENCE_END}))"  # nor those in P.O.
    rf"|(?P<comma>,)|[&+]|\b(?:{'|'.join(_CONJUNCTIONS)}|as\s+well\s+as|if\s+(?:not|so)"
    r"|(?<!i\s)(?<!we\s)(?<!you\s)(?<!'[dm]\s)(?:also|then))\b",  # "I also", "could you then" go on
    re.IGNORECASE,
)
_ENDS = " .!?"  # of a text: they join nothing
_SIGNS = (*",.!?;…&+\n", *(f" {word} " for word in (*_CONJUNCTIONS, "also", "then", "as well", "if not", "if so")))
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_PUNCTUATION = " \t\r\n.,;:!?…\"'“”‘’()[]{}-–—/*"
_QUESTION = re.compile(r"(how|what|when|where|which|who|why)\b")
# A clause that begins with one of these tells why or when, and belongs to the one beside it.
_BEFORE_ANOTHER = frozenset(("if", "unless", "because", "since", "although", "though", "while"))
_AFTER_ANOTHER = _BEFORE_ANOTHER | {"so", "which", "whose", "until", "instead"}


class Span(NamedTuple):
    """A part of a text, in code points: its first one, and the one after its last."""

    start: int
    end: int


class _Piece(NamedTuple):
    """What stands between two joints: its words, and those that it begins with, in lower case."""

    span: Span
    first: str
    second: str

    @classmethod
    def of(cls, text: str, start: int, end: int) -> _Piece | None:
        """None without a word."""
        if (first := _WORD.search(text, start, end)) is None:
            return None
        second = _WORD.search(text, first.end(), end)
        last = start + len(text[start:end].rstrip(_PUNCTUATION))
        return cls(Span(first.start(), last), first[0].lower(), second[0].lower() if second else "")

    @property
    def explains(self) -> bool:
        return self.first in _AFTER_ANOTHER and not (self.first == "so" and _QUESTION.match(self.second))


def may_have_clauses(text: str) -> bool:
    """A look before `split_clauses`, which most texts need not go through: a microsecond or two."""
    body = text[:_MAX_CHARACTERS].rstrip(_ENDS).lower()
    for sign in _SIGNS:  # noqa: SIM110  `any` takes twice as long for so few
        if sign in body:
            return True
    return False


def split_clauses(text: str) -> list[Span]:
    """The clauses of a text, in order, without what joins them; none when it has only one.

    A single word is no clause, as in "name and address".
    """
    length = min(len(text), _MAX_CHARACTERS)
    clauses: list[Span] = []
    begun: _Piece | None = None  # belongs to the clause after it, if the sentence has one
    at, in_sentence, after_comma = 0, False, False
    for joint in [*_JOINT.finditer(text, 0, length), None]:
        if (piece := _Piece.of(text, at, joint.start() if joint else length)) is not None:
            if begun is not None:
                clauses.append(Span(begun.span.start, piece.span.end))
                begun = None
            elif in_sentence and clauses and (not piece.second or (after_comma and piece.explains)):
                clauses[-1] = Span(clauses[-1].start, piece.span.end)
            elif not piece.second or piece.first in _BEFORE_ANOTHER:
                begun = piece
            else:
                clauses.append(piece.span)
            in_sentence, after_comma = True, False
        if joint is None or joint["sentence"]:
            if begun is not None and begun.second:
                clauses.append(begun.span)
                begun = None
            in_sentence = False
        if joint:
            at, after_comma = joint.end(), joint["comma"] is not None
        if len(clauses) > MAX_CLAUSES:
            break
    if begun is not None and clauses:
        clauses[-1] = Span(clauses[-1].start, begun.span.end)
    return clauses[:MAX_CLAUSES] if len(clauses) > 1 else []
