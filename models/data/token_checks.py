"""What the base's tokenizer says of a training file: texts that will be cut, and languages that it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from export.base_model import resolve_base
from export.symbols import Speller, spelled_symbols, unknown_id
from export.tokenizer import MAX_CHARACTERS_A_TOKEN
from models.data.report import Finding

_SAMPLE = 20_000  # texts; a share is known to half a point with these
_BATCH = 1000
_MAX_EXAMPLES = 3
# Tokens a word, punctuation aside. English texts have 1.0 to 1.2 with the default base, and 1.5 in chats of typos; in
# German, French, Spanish, Italian, Dutch it needs 1.8 to 2.4, in Turkish or Russian 3.4 and more.
_MAX_TOKENS_A_WORD = 1.7
_MIN_WORDS = 4
_MAX_UNKNOWN = 0.05  # of a text's tokens
_MIN_SHARE = 0.1  # of the texts, before a language is suspected
# Scripts that write no spaces between words: there, each character counts as a word.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_NO_SPACES}]|[^\\W_{_NO_SPACES}]+")


class _Counts(NamedTuple):
    words: int
    tokens: int
    """of the words alone"""
    unknown: int
    is_cut: bool

    @property
    def is_foreign(self) -> bool:
        many = self.words >= _MIN_WORDS and self.tokens > _MAX_TOKENS_A_WORD * self.words
        return many or self.unknown > _MAX_UNKNOWN * max(self.tokens, 1)


def token_findings(texts: Sequence[str], base: str, max_length: int) -> list[Finding]:
    """Findings on a sample of the training texts. None when the base's tokenizer.json is not on this disk.

    Loads neither torch nor transformers.
    """
    file = Path(resolve_base(base)) / "tokenizer.json"
    if not file.is_file():
        return []
    order = np.random.default_rng(0).permutation(len(texts))[:_SAMPLE]
    sample = [texts[i] for i in order]
    counts = list(_counted(sample, file, max_length))
    of = "the training texts" if len(sample) == len(texts) else f"a sample of {len(sample):,} training texts"
    found = []
    if cut := [i for i, count in enumerate(counts) if count.is_cut]:
        share = len(cut) / len(counts)
        found.append(Finding(
            "texts_cut", "warning" if share > _MIN_SHARE else "note", len(cut),
            f"{share:.1%} of {of} have more than {max_length} tokens; what follows is not read, here and in serving.",
            "If the end of a text matters, cut or shorten the texts by a rule of your own.", _shown(sample, cut),
        ))  # fmt: skip
    foreign = [i for i, count in enumerate(counts) if count.is_foreign]
    if len(foreign) > _MIN_SHARE * len(counts):
        words, tokens, unknown = (
            sum(getattr(count, name) for count in counts) for name in ("words", "tokens", "unknown")
        )
        found.append(Finding(
            "language", "warning", len(foreign),
            f"{len(foreign) / len(counts):.0%} of {of} are hardly in the vocabulary of {base}: in all "
            f"{tokens / max(words, 1):.1f} tokens a word, {unknown / max(tokens, 1):.1%} unknown. Their language is "
            "probably not the base's.",
            "Give a base that knows it, for instance --base intfloat/multilingual-e5-small.", _shown(sample, foreign),
        ))  # fmt: skip
    return found


def _counted(texts: Sequence[str], file: Path, max_length: int) -> Iterator[_Counts]:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = unknown_id(tokenizer)
    special = tokenizer.num_special_tokens_to_add(False)
    speller = Speller(spelled_symbols(tokenizer))
    for at in range(0, len(texts), _BATCH):
        cut = (text[: max_length * MAX_CHARACTERS_A_TOKEN] for text in texts[at : at + _BATCH])
        part = [speller.spell(text) for text in cut]
        words = [_WORD.findall(text) for text in part]
        whole = tokenizer.encode_batch_fast(part, add_special_tokens=False)
        of_words = tokenizer.encode_batch_fast([" ".join(found) for found in words], add_special_tokens=False)
        for text, found, encoded, spelled in zip(texts[at : at + _BATCH], words, whole, of_words, strict=True):
            is_cut = len(encoded.ids) + special > max_length or len(text) > max_length * MAX_CHARACTERS_A_TOKEN
            yield _Counts(len(found), len(spelled.ids), sum(id_ == unknown for id_ in encoded.ids), is_cut)


def _shown(texts: Sequence[str], which: Sequence[int]) -> tuple[str, ...]:
    return tuple(repr(texts[i] if len(texts[i]) <= 80 else texts[i][:80] + "…") for i in which[:_MAX_EXAMPLES])
