"""Names of people after a cue: introductions, titles, greetings, sign-offs.

A list of given and family names (names.txt) decides what is a name. Names within a sentence, such as those of chairmen
in business news, are left: without a language model they cannot be told from a company's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from models.entities.scan import Scan
from models.entities.types import Found


def _set(words: str, separator: str | None = None) -> frozenset[str]:
    return frozenset(" ".join(word.split()) for word in words.split(separator))


_WORD = r"[^\W\d_](?:[^\W\d_]|['-](?=[^\W\d_])){0,30}"
_ONE = re.compile(rf"(?:(?:[A-Z]\.){{1,3}}|{_WORD})(?![\w@])")
_CUE = re.compile(
    r"(?<![\w\[])(?:"
    r"(?P<named>(?:my|full|first|last|sur|cardholder|account holder|holder)(?:'s)? ?name(?: is|'s|:| -)"
    r"|(?:am|i'm|im|is) called|please call me|mein name ist|ich hei(?:ß|ss)e|je m'appelle|me llamo|mi chiamo"
    r"|mi nombre es|name:)"
    r"|(?P<title>mrs?|ms|miss|mx|dr|prof|herrn?|frau|madame|mme|señora?|signora?)\.?"
    r"|(?P<called>i am|i'm|im|this is|ich bin|je suis|soy|sono)"
    r"|(?P<signed>(?:regards|sincerely|faithfully|cheers|thanks|thank you|thx|best|wishes|yours"
    r"|grü(?:ß|ss)en?|gru(?:ß|ss)|cordialement|amicalement|atentamente|saludos?|saluti|groet(?:en|jes)?|pozdrawiam|hälsningar)"
    r"(?: again| in advance)?\s{0,2}[,.!\n-]{0,3})"
    r"|(?P<met>from|to|for|by|with|and|hi|hello|hey|dear|contact|attn|payee|recipient|holder|behalf of)[:,]?"
    r")\s{1,3}(?=[^\W\d_])"
)
_NO_NAME = _set(
    """
    a an the i you he she it we they my your his her our their this that these those not no yes and or but if so as
    at in on of to for from by with about into over after before is are was were be been am have has had do does did
    can could will would should may might must just still also too very now here there then when where who what
    which why how wrong misspelled spelled incorrect different changed missing please thanks hello hi regards team
    all everyone sir madam support customer service sales president chairman director ceo minister mr mrs ms dr
    """
)
# Letters map to themselves, since a character missing in the table costs an exception.
_TO_SPACE = {code: chr(code) for code in range(128)} | str.maketrans(
    dict.fromkeys("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~“”«»…", " ")
)
_TELLING = _set(
    """
    name mr mrs ms miss mx dr prof herr herrn frau madame mme señor señora signor signora called call heiße heisse
    appelle llamo chiamo nombre
    """
)
_SELF = _set("am m im this bin suis soy sono regards sincerely cheers thanks yours")
_PARTICLES = _set("de del della der den di da dos du la le van von ter ten bin ibn al el y")
_FIRMS = _set(
    """
    philip morris, dr martens, dr reddy, dr pepper, morgan stanley, louis vuitton, calvin klein, ralph lauren, hugo
    boss, christian dior, charles schwab, eli lilly, jack daniel, jack wolfskin, harley davidson, jimmy choo, karl
    lagerfeld, giorgio armani, marc jacobs, michael kors, tommy hilfiger, paul smith, jack jones, max mara, martin
    marietta
    """,
    ",",
)
_FIRM_AFTER = re.compile(
    r" (?:Inc|INC|Ltd|LTD|LLC|[Pp]lc|PLC|Corp|Co|Oyj?|OYJ?|AB|ASA?|A/S|AG|GmbH|KG|SE|SA|NV|BV|SpA|Group|Holdings?|Bank"
    r"|Partners|&|Securities|Capital|Industries|Foods|Stores|Motors|Pharma\w*|Lab\w*|Investments?|US)\b"
)
_MAX_WORDS = 4  # words of one name


class _Known(NamedTuple):
    given: frozenset[str]
    doubtful: frozenset[str]
    """given names that are also words or places"""
    family: frozenset[str]
    telling: frozenset[str]
    """given names, and words that come before any name"""
    any: frozenset[str]


@cache
def _known() -> _Known:
    lines = files("models.entities").joinpath("names.txt").read_text(encoding="utf-8").splitlines()
    lists: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("["):
            words = lists.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            words += line.split()
    given, doubtful, family = (frozenset(lists[name]) for name in ("given", "given_or_word", "family"))
    telling = given | _TELLING
    return _Known(given, doubtful, family, telling, telling | doubtful | family)


def may_have_names(text: str) -> bool:
    """A quick check by the words whether `names` could find one."""
    words = text.lower().translate(_TO_SPACE).split()
    known = _known()
    if known.any.isdisjoint(words):
        return False
    if not known.telling.isdisjoint(words):
        return True
    # Words such as "hope" count as names only with a capital letter.
    if any(word.capitalize() in text for word in known.doubtful.intersection(words)):
        return True
    return not known.family.isdisjoint(words) and not _SELF.isdisjoint(words)


def names(scan: Scan) -> Iterator[Found]:
    """A name after its cue, without title or greeting."""
    text = scan.text
    if not may_have_names(text):
        return
    lowered = _lower(text)
    for cue in _CUE.finditer(lowered):  # several times as fast as re.IGNORECASE
        words = _words(text, cue.end())
        if words and (end := _end_of_name(cue, text, words)) and not _is_firm(cue, text, end):
            yield Found("name", cue.end(), end)


def _lower(text: str) -> str:
    """Lower case of the same length: U+0130 would become two characters."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(char.lower()[0] for char in text)


def _is_firm(cue: re.Match[str], text: str, end: int) -> bool:
    name = text[cue.end() : end].lower()
    if cue.lastgroup == "title":
        name = f"{cue[0].strip().rstrip('.')} {name}"
    return cue.lastgroup != "named" and (name in _FIRMS or bool(_FIRM_AFTER.match(text, end)))


def _words(text: str, start: int) -> list[re.Match[str]]:
    """Up to four adjacent words."""
    first = _ONE.match(text, start)
    if not first:
        return []
    words = [first]
    while (
        len(words) < _MAX_WORDS
        and not words[-1][0].endswith("'s")
        and text[words[-1].end() : words[-1].end() + 1] == " "
    ):
        following = _ONE.match(text, words[-1].end() + 1)
        if not following:
            break
        words.append(following)
    return words


def _end_of_name(cue: re.Match[str], text: str, words: list[re.Match[str]]) -> int | None:
    """The end of the name that the words begin with; None if they begin with none."""
    known = _known()
    said = text[cue.start() : cue.end()].strip(" :,.\t\n")
    shouting = said.isupper() and len(said) > 2  # then capitals say nothing about names
    tokens = [word[0].removesuffix("'s") for word in words]
    lower = [token.lower() for token in tokens]
    large = [
        token[0].isupper() and not shouting and low not in _NO_NAME for token, low in zip(tokens, lower, strict=True)
    ]
    first, kind = lower[0], cue.lastgroup
    given = first in known.given
    either = given or first in known.doubtful
    second = next((at for at in range(1, len(words)) if lower[at] not in _PARTICLES), 0)
    known_second = second > 0 and lower[second] in known.family
    surname = second > 0 and (large[second] or known_second) and lower[second] not in _NO_NAME
    match kind:
        case "named":
            begins = either or (large[0] and tokens[0] != "I") or (first in known.family and surname)
            if said.lower().startswith("name"):
                begins = either or (large[0] and surname and first in known.family)
        case "title":
            if said in ("MS", "MR", "DR") and not text.isupper():
                return None  # Microsoft, and other abbreviations
            formal = said.lower() not in ("miss", "ms", "mx", "im")
            begins = large[0] or ((either or first in known.family) and formal and first not in _NO_NAME)
        case "called":
            begins = given or (large[0] and surname and large[second] and (either or known_second))
        case "signed":
            after = text[words[-1].end() :].partition("\n")[0].strip(" .!,")
            begins = (
                not after
                and len(words) <= 3
                and (given or (large[0] and (either or first in known.family or (surname and known_second))))
            )
        case _:
            both = known_second and (given or (large[0] and either and large[second]))
            begins = both or (large[0] and given and said.lower() in ("hi", "hello", "hey", "dear"))
    if not begins:
        return None
    last = 0
    for index in range(1, len(words)):
        if lower[index] in _PARTICLES and index + 1 < len(words):
            continue  # part of the name if another part follows
        if lower[index] in _NO_NAME or not (large[index] if large[0] else lower[index] in known.family):
            break
        last = index
    return words[last].start() + len(tokens[last])
