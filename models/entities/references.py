"""Numbers of orders and invoices: codes such as `88231` or `INV-1180/26`, told by the words around them.

Without such a word only a code with letters and hyphens, or one behind `#`, is taken for an order's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.entities.scan import Scan
from models.entities.types import Found
from models.entities.words import Hit

_CODE = re.compile(
    r"(?<![^\W_])(?<!\d[.,])(?<![\w][-/])(?=[A-Za-z/-]{0,12}\d)[A-Za-z0-9]{1,24}+(?:[-/][A-Za-z0-9]{1,24}+){0,5}+"
    r"(?![^\W_]|[-/@%°€$£]|[.,:]\d| ?%)"
)
_OWN_PREFIX = re.compile(
    r"(?:[A-Z]{2}-)?(?:(?P<invoice_id>INV|(?P<weak>RECH|RG|RE|FV))|(?P<order_id>ORD|ORDER|PO|BEST))[-/]?\d", re.I
)
_INVOICE_LIKE = re.compile(r"(?:[A-Z]{2}-)?(?:INV|IN|I|RECH|RG|RE|RN|R|F[A-Z]{0,2}|SI)[-/]?\d|(?:19|20)\d\d[-/]", re.I)
# Between a word such as "order" and a short number, or a number and such a word behind it, nothing else may stand.
_LINK = re.compile(
    r"(?:[\s:#=.,()\-\"'、]|\b(?:number|numbers|no|nr|num|id|code|ref|reference|confirmation|nummer|numéro|numero|número|n|nº"
    r"|is|was|are|ist|lautet|est|es|è|with|the|my|mit|der|die|placed|under|رقم|מספר|номер|号|番号)\b)*",
    re.I,
)
_BEHIND = re.compile(r"\s?(?:is|was|=|ist|est|es|è)\s(?:\w{1,12}\s){0,2}")
_AND = re.compile(
    r"\s?(?:[,;&+/]|and|or|und|oder|et|ou|y|e|o|en|i)?\s?(?:and|or|und|oder|et|ou|y|e|o|en|i)?\s?#?\s?", re.I
)
_FOR = re.compile(r"\b(?:for|of|für|pour|para|per|voor)\b", re.I)
_UNIT = re.compile(
    r" ?(?:x\b|st\b|nd\b|rd\b|th\b|mm|cm|km|kg|ml|gb|tb|mb|mah|pcs|pieces|pairs?|boxes|items?|units|people"
    r"|days?|weeks?|months?|years?|hours?|h\b|min|stück|times|percent)(?![^\W_])",
    re.I,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_WORD_BEFORE = re.compile(r"(?:order|invoice)[-/]?(?=\d)", re.I)  # order-88231
_ASKED_ABOUT = re.compile(
    r"(?:\b(?:cancel|track|trace|return|refund|where is|wheres|where's|it's|its|it is|about|regarding|storniere"
    r"|stornieren|annuler|cancelar)\s)\Z",
    re.I,
)
_ALONE = re.compile(r"(?:\A|[.!?;\n])\s*\Z")
_KINDS = ("order_id", "invoice_id")
_MAX_BEHIND = 24  # characters between a number and the word behind it


def references(scan: Scan) -> Iterator[Found]:
    """Order and invoice numbers. The value is in capitals."""
    text = scan.spaced
    last: Found | None = None
    for match in _CODE.finditer(text):
        start, end = match.span()
        digits = sum(map(str.isdigit, match[0]))
        if digits < 2 or (digits < 3 and len(match[0]) < 6):
            continue
        kind = _kind(scan, match, digits, last)
        if kind is not None:
            if word := _WORD_BEFORE.match(text, start):
                start = word.end()
            last = Found(kind, start, end, text[start:end].upper())
            yield last


def _kind(scan: Scan, match: re.Match[str], digits: int, last: Found | None) -> str | None:
    text, start, end = scan.spaced, *match.span()
    code = match[0]
    if last is not None and start - last.end < 10 and _AND.fullmatch(text, last.end, start):
        return last.kind if digits >= 3 and not _UNIT.match(text, end) else None
    before = scan.context.before(start)
    own = _OWN_PREFIX.match(code)
    if own and (not own["weak"] or before is None or before.of in _KINDS):
        return "order_id" if own["order_id"] else "invoice_id"
    behind = _named_behind(scan, end)
    if behind is not None and digits >= 3:
        return behind
    if before is not None and before.of not in _KINDS:
        return None
    marked = text[start - 1 : start] == "#" and digits >= 3
    if before is not None:
        return _kind_behind(text, before, code, start, end, digits, marked=marked)
    if marked:
        return "order_id"
    return "order_id" if _is_order_like(text, code, start, end) else None


def _kind_behind(
    text: str, before: Hit[str], code: str, start: int, end: int, digits: int, *, marked: bool
) -> str | None:
    """The type of a code behind a word for an order or an invoice."""
    linked = _LINK.fullmatch(text, before.end, start) is not None
    plain = code.isdigit()
    if _UNIT.match(text, end) and not marked:
        return None
    if (plain and digits < 5 and not (linked or marked)) or (
        plain and _YEAR.fullmatch(code) and not text[before.end : start].strip()
    ):
        return None
    if not plain and not linked and (digits < 3 or (digits == 3 and not any(map(str.isalpha, code)))):
        return None
    if before.of == "invoice_id" and _FOR.search(text, before.end, start) and not _INVOICE_LIKE.match(code):
        return "order_id"  # the bill for #77120
    return before.of


def _named_behind(scan: Scan, end: int) -> str | None:
    """The type that "is my order" behind the code names."""
    after = scan.context.after(end)
    if after is None or after.of not in _KINDS or after.start - end > _MAX_BEHIND:
        return None
    return after.of if _BEHIND.fullmatch(scan.spaced, end, after.start) else None


def _is_order_like(text: str, code: str, start: int, end: int) -> bool:
    """Whether a code without any word for it has the look of an order's number.

    That is one or two letters and two or more groups of digits or four digits, such as `WX-40-1187`; or six to twelve
    digits that are all of a sentence, or behind words such as "where is".
    """
    if code.isdigit():
        if not 6 <= len(code) <= 12:
            return False
        if _ASKED_ABOUT.search(text, max(0, start - 16), start):
            return True
        return bool(_ALONE.search(text, max(0, start - 4), start)) and not text[end : end + 8].strip(" .!?")
    groups = code.split("-")
    head, digits = groups[0], groups[1:]
    if not (head.isascii() and head.isalpha() and head.isupper() and len(head) <= 2 and digits):
        return False
    return all(group.isdigit() for group in digits) and (len(digits) > 1 or len(digits[0]) >= 4)
