"""Amounts of money: a number with a currency before or behind it. The value is `EUR 12.50`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from models.entities.scan import Scan
from models.entities.types import Found

_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₽": "RUB", "₺": "TRY", "₩": "KRW", "₴": "UAH"}
_CODES = frozenset(
    """
    USD EUR GBP JPY CNY INR CHF SEK NOK DKK PLN CZK HUF RON BGN TRY RUB UAH ILS AED SAR QAR KWD BHD EGP ZAR NGN KES CAD
    AUD NZD SGD HKD TWD KRW THB MYR IDR PHP VND PKR BDT LKR BRL MXN ARS CLP COP PEN ISK
    """.split()  # noqa: SIM905
)
_WORDS = {
    **dict.fromkeys(("euro", "euros", "eur"), "EUR"),
    **dict.fromkeys(("dollar", "dollars", "buck", "bucks", "dólares", "dollari"), "USD"),
    **dict.fromkeys(("pound", "pounds", "quid", "pfund", "livres", "libras", "sterline"), "GBP"),
    **dict.fromkeys(("yen", "円"), "JPY"),
    **dict.fromkeys(("yuan", "rmb", "元"), "CNY"),
    **dict.fromkeys(("rupee", "rupees", "rs"), "INR"),
    **dict.fromkeys(("franken", "francs", "franchi", "sfr", "fr"), "CHF"),
    **dict.fromkeys(("zł", "zloty", "złotych", "zlotych"), "PLN"),
    **dict.fromkeys(("tl", "lira"), "TRY"),
    **dict.fromkeys(("рублей", "руб"), "RUB"),
    "kč": "CZK",
}
_DOLLARS = {
    "US": "USD",
    "CA": "CAD",
    "C": "CAD",
    "AU": "AUD",
    "A": "AUD",
    "NZ": "NZD",
    "HK": "HKD",
    "S": "SGD",
    "R": "BRL",
}
_WHOLE_UNITS = frozenset({"JPY", "KRW", "VND", "CLP", "ISK"})  # currencies without decimals

_NUMBER = re.compile(
    r"(?<![\d.,])(?P<number>\d{1,2}(?:,\d\d){1,3},\d{3}(?!\d)"
    r"|\d{1,3}(?:[.,' ]\d{3}(?!\d)){1,4}+(?:[.,]\d{1,2}(?!\d))?|\d{1,12}+(?:[.,]\d{1,2}(?!\d))?)"
    r"(?!\d|[.,]\d)(?P<dash>,-|\.-)?"
    r"(?P<scale>(?:k|m|mn|bn)(?![^\W_])| (?:thousand|million|billion|mio|mn|bn|tausend|millionen)(?![^\W_]))?"
    r"(?: ?(?P<after>[$€£¥₹₽₺₩₴円元]|[^\W\d_円元]{2,10}(?![^\W_])))?"
)
_SCALES = {
    **dict.fromkeys(("k", "thousand", "tausend"), 1_000),
    **dict.fromkeys(("m", "mn", "mio", "million", "millionen"), 1_000_000),
    **dict.fromkeys(("bn", "billion"), 1_000_000_000),
}
_BEFORE = re.compile(
    r"(?:(?P<dollar>(?<![A-Za-z])(?:US|CA?|AU?|NZ|HK|S|R))?(?P<sign>[$€£¥₹₽₺₩₴])"
    r"|(?<![A-Za-z])(?P<code>[A-Za-z]{2,3}\.?)) ?\Z"
)
_SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
          "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {
    "a": 1,
    **{word: number for number, word in enumerate(_SMALL, 1)},
    **{word: 10 * number for number, word in enumerate(_TENS, 2)},
    "hundred": 100,
    "thousand": 1000,
}
_WORD = "|".join(_NUMBER_WORDS)
_SPELLED = re.compile(
    rf"(?<!\w)(?!a [edbpqyf])(?P<number>(?:{_WORD})(?:(?:[ -]| and )(?:{_WORD})(?!\w)){{0,7}}) "
    r"(?P<currency>euros?|dollars?|bucks|pounds?|quid|yen|francs)(?!\w)",
    re.I,
)
SPELLED_AMOUNT_HINTS = ("euro", "dollar", "bucks", "pound", "quid", "yen")


def amounts(scan: Scan) -> Iterator[Found]:
    """Numbers with a currency's sign, code or name."""
    text = scan.text
    for match in _NUMBER.finditer(text):
        if (found := _amount(text, match)) is not None:
            yield found


def spelled_amounts(scan: Scan) -> Iterator[Found]:
    """Amounts in English words. Texts with none of SPELLED_AMOUNT_HINTS have none."""
    for match in _SPELLED.finditer(scan.text):
        currency, number = _WORDS[match["currency"].lower()], _spelled(match["number"])
        yield Found("amount", *match.span(), f"{currency} {number}" + ("" if currency in _WHOLE_UNITS else ".00"))


def _amount(text: str, match: re.Match[str]) -> Found | None:
    start = match.start()
    before = _BEFORE.search(text, max(0, start - 5), start) if start and not text[start - 1].isdigit() else None
    if before is not None and (currency := _currency_before(before)):
        return _found(before.start(), max(match.end("number"), match.end("dash"), match.end("scale")), currency, match)
    after = match["after"]
    if after is None or not (currency := _currency_after(after)):
        return None
    return _found(start, match.end("after"), currency, match)


def _currency_before(before: re.Match[str]) -> str | None:
    if before["sign"]:
        return _DOLLARS[before["dollar"]] if before["dollar"] and before["sign"] == "$" else _SIGNS[before["sign"]]
    code = before["code"].rstrip(".")
    return code.upper() if code.upper() in _CODES else "INR" if code.lower() == "rs" else None


def _currency_after(after: str) -> str | None:
    if after in _SIGNS:
        return _SIGNS[after]
    return after.upper() if after.upper() in _CODES and len(after) == 3 else _WORDS.get(after.lower())


def _found(start: int, end: int, currency: str, match: re.Match[str]) -> Found:
    whole, decimals = _parts(match["number"])
    if decimals and currency == "JPY":  # the sign is that of the yuan as well, and yen have no decimals
        currency = "CNY"
    value = f"{whole}" if currency in _WHOLE_UNITS else f"{whole}.{decimals:0<2}"
    if match["scale"]:
        scaled = Decimal(f"{whole}.{decimals or 0}") * _SCALES[match["scale"].strip()]
        value = f"{scaled:.0f}" if currency in _WHOLE_UNITS else f"{scaled:.2f}"
    return Found("amount", start, end, f"{currency} {value}")


def _parts(number: str) -> tuple[int, str]:
    """(whole units, decimals): the last point or comma is of decimals if one or two digits follow it."""
    head, tail = number, ""
    at = max(number.rfind("."), number.rfind(","))
    if at >= 0 and len(number) - at - 1 <= 2:
        head, tail = number[:at], number[at + 1 :]
    return int("".join(filter(str.isdigit, head))), tail


def _spelled(words: str) -> int:
    """The number in English words, such as "two hundred and five"."""
    total, part = 0, 0
    for word in re.split(r"[ -]", words.lower()):
        number = _NUMBER_WORDS.get(word, 0)
        if number == 100:
            part = max(part, 1) * 100
        elif number == 1000:
            total, part = total + max(part, 1) * 1000, 0
        else:
            part += number
    return total + part
