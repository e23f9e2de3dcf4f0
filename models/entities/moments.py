"""Dates and times of day. A date's value is ISO 8601, `--05-03` without a year; a time's is `14:30`.

Words such as "yesterday" are in registry.yaml; their value is the word, since the day of the customer is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from models.entities.mail import has_any
from models.entities.scan import Scan
from models.entities.types import Found

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar jänner janvier enero ene gennaio januari janeiro stycznia января"
            " ocak يناير ינואר בינואר tammikuuta ledna",
            "february feb februar février fevrier févr febrero febbraio februari fevereiro lutego февраля"
            " şubat فبراير פברואר בפברואר helmikuuta února",
            "march mar märz maerz mars marzo maart março marca марта mart مارس מרץ במרץ maaliskuuta března",
            "april apr avril abril aprile kwietnia апреля nisan أبريل אפריל באפריל huhtikuuta dubna",
            "may mai mayo maggio mei maj maio maja мая mayıs مايو מאי במאי toukokuuta května",
            "june jun juni juin junio giugno giu junho czerwca июня haziran يونيو יוני ביוני kesäkuuta června",
            "july jul juli juillet julio luglio lug julho lipca июля temmuz يوليو יולי ביולי heinäkuuta července",
            "august aug août aout agosto ago augustus augusti sierpnia августа"
            " ağustos أغسطس אוגוסט באוגוסט elokuuta srpna",
            "september sep sept septembre septiembre settembre setembro września сентября"
            " eylül سبتمبر ספטמבר בספטמבר syyskuuta září",
            "october oct oktober okt octobre octubre ottobre ott outubro października октября"
            " ekim أكتوبر אוקטובר באוקטובר lokakuuta října",
            "november nov novembre noviembre novembro listopada ноября"
            " kasım نوفمبر נובמבר בנובמבר marraskuuta listopadu",
            "december dec dezember dez décembre decembre diciembre dic dicembre dezembro grudnia декабря"
            " aralık ديسمبر דצמבר בדצמבר joulukuuta prosince",
        ),
        1,
    )
    for name in names.split()
}
_VERBS = frozenset({"may", "march", "mar"})  # months that are words too
_WEEKDAY_BEFORE = re.compile(
    r"(?<!\w)(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|satur|sat|sun)(?:day)?"
    r"|(?<!\w)(?:(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|sonnabend|lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche"
    r"|lunes|martes|mi[ée]rcoles|jueves|viernes|s[áa]bado|domingo|(?:lune|marte|mercole|giove|vener)d[ìi]|sabato|domenica"
    r"|(?:maan|dins|woens|donder|vrij|zater|zon)dag)",
    re.I,
)
_BETWEEN = re.compile(r"[.,]? (?:the |den |dem |le |el |il )?\Z", re.I)
_MAX_WEEKDAY = 16  # characters, with what stands between it and the date
_NUMERIC = re.compile(
    r"(?<![\w.,/:-])(?:(?P<y>(?:19|20)\d\d)(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})"
    r"|(?P<one>\d{1,2})(?P<sep>[./-])(?P<two>\d{1,2})(?P=sep)(?P<year>(?:19|20)?\d\d)"
    r")(?![\w]|[-/.:]\d)|(?P<cy>(?<!\d)\d{4})年(?P<cm>\d{1,2})月(?P<cd>\d{1,2})日"
)
_NO_YEAR = re.compile(
    r"(?<![\w.])(?:(?:am|vom|bis|zum|seit|ab) (?P<date>(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.)"
    r"|(?:on|until|since|le|el|il) (?P<slash>(?P<one>\d{1,2})/(?P<two>\d{1,2})(?![./])))(?!\w)",
    re.I,
)
_MONTH_DAY_CJK = re.compile(r"(?<![\d年])(?P<m>\d{1,2})月(?P<d>\d{1,2})日")
_YEAR = r"(?:(?:,? |-)(?:de |del )?(?P<year>(?:19|20)\d\d)(?![\w-]|[.,]\d))?"
_DAY_MONTH = re.compile(
    rf"(?<![\w.,:/-])(?P<d>\d{{1,2}})(?P<th>st|nd|rd|th|er|º|\.)?[ -]?(?:of |de )?"
    rf"(?P<month>[^\W\d_]{{3,12}})\.?{_YEAR}(?![\w])"
)
_MONTH_DAY = re.compile(
    rf"(?<!\w)(?P<month>[^\W\d_]{{3,12}})\.? (?:the )?(?P<d>\d{{1,2}})(?P<th>st|nd|rd|th)?(?![\w%:/-]|[.,]\d){_YEAR}"
)
_MONTH_YEAR = re.compile(
    r"(?<!\w)(?<!\d )(?<!\d[.-])(?P<month>[^\W\d_]{3,12})\.? (?:de |del )?(?P<year>(?:19|20)\d\d)(?![\w-]|[.,/]\d)"
)
_AFTER_MODAL = re.compile(r" (?:be|have|not|also|need|want)\b")
_CLOCK = re.compile(
    r"(?<![\w.:])(?<![^\d\s]-)(?P<h>[01]?\d|2[0-4])(?::(?P<m>[0-5]\d)(?::[0-5]\d)?"
    r"|h(?P<hm>[0-5]\d)|\.(?P<pm>[0-5]\d)(?= ?(?:uhr|[ap]\.?m\b)))"
    r"(?![\d:]|\.\d)(?: ?(?P<half>[ap])\.?m\b\.?| ?uhr\b)?",
    re.I,
)
_HOUR = re.compile(
    r"(?<![\w.,:/])(?P<h>\d{1,2})(?: ?o'clock)?(?: ?(?P<half>[ap])\.?m\b\.?(?!\w)"
    r"| uhr(?: (?P<uhr>[0-5]\d)(?!\w))?\b| ?o'clock\b)",
    re.I,
)
_HOUR_AT = re.compile(
    r"(?:^|[^\w])(?:à|avant|après|vers|dès|jusqu'à|às|alle|at|by|before|after) (?P<time>(?P<h>\d{1,2}) ?h)(?!\w)", re.I
)
_AT_CLOCK = re.compile(
    r"(?<!\w)(?:um|alle|kl\.?|klo|om|ore) (?P<time>(?P<h>[01]?\d|2[0-3])\.(?P<m>[0-5]\d))(?!\w|[.,:]\d| ?[%€$£])",
    re.I,
)
_CJK = re.compile(
    r"(?P<half>午前|午後|上午|下午|오전 ?|오후 ?)?(?<!\d)(?P<h>\d{1,2})(?:時|点|點|시)(?!間)"
    r"(?: ?(?P<m>[0-5]?\d)(?:分|분)|(?P<mid>半))?"
)
SPELLED_TIME_HINTS = ("o'clock", "half past", "half to", "quarter past", "quarter to")
_CJK_SIGNS = ("時", "点", "點", "시")
_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_O_CLOCK = re.compile(
    rf"(?<!\w)(?P<h>{'|'.join(_HOURS)}) o'clock(?!\w)"
    r"(?: (?P<half>[ap])\.?m\b| in the (?P<part>morning|afternoon|evening))?",
    re.I,
)
_PAST = re.compile(rf"(?<!\w)(?P<part>half|quarter) (?P<side>past|to) (?P<h>{'|'.join(_HOURS)})(?!\w)", re.I)


def dates(scan: Scan) -> Iterator[Found]:
    """Days of the calendar, in figures or with the month's name in many languages, with their weekday."""
    for found in _dates(scan):
        yield found._replace(start=_with_weekday(scan.text, found.start))


def _with_weekday(text: str, start: int) -> int:
    """Where "Friday, the" before a date begins; else its own start."""
    begin = max(0, start - _MAX_WEEKDAY)
    between = _BETWEEN.search(text, begin, start)
    if between is None:
        return start
    for weekday in _WEEKDAY_BEFORE.finditer(text, begin, between.start()):
        if weekday.end() == between.start():
            return weekday.start()
    return start


def _dates(scan: Scan) -> Iterator[Found]:
    text = scan.text
    for match in _NUMERIC.finditer(text):
        if (value := _numeric(match, scan.day_first)) is not None:
            yield Found("date", *match.span(), value)
    if "月" in text:
        for match in _MONTH_DAY_CJK.finditer(text):
            if value := _iso(None, int(match["m"]), int(match["d"])):
                yield Found("date", *match.span(), value)
    for match in _NO_YEAR.finditer(text):
        if match["d"]:
            value = _iso(None, int(match["m"]), int(match["d"]))
        else:
            value = _slashed(None, int(match["one"]), int(match["two"]), scan.day_first)
        if value:
            yield Found("date", *match.span("date" if match["d"] else "slash"), value)
    for match in _DAY_MONTH.finditer(text):
        if (found := _named(text, match, text[match.end() : match.end() + 6])) is not None:
            yield found
    for match in _MONTH_YEAR.finditer(text):
        if month := _MONTHS.get(match["month"].lower()):
            yield Found("date", *match.span(), f"{match['year']}-{month:02}")
    for match in _MONTH_DAY.finditer(text):
        named = match["month"]
        # "may 3 people", "march 8 km": a month without its capital needs a sign that it is one.
        if named.lower() in _VERBS and not (
            match["th"] or match["year"] or (named[0].isupper() and not named.isupper())
        ):
            continue
        if (found := _named(text, match, "")) is not None:
            yield found


def _named(text: str, match: re.Match[str], behind: str) -> Found | None:
    month = _MONTHS.get(match["month"].lower())
    if month is None or (match["month"] == "may" and _AFTER_MODAL.match(behind)):
        return None
    value = _iso(int(match["year"]) if match["year"] else None, month, int(match["d"]))
    end = match.end()
    if value is None:
        return None
    if text[end - 1 : end] == "." and not match["year"] and match.re is _DAY_MONTH and len(match["month"]) > 4:
        end -= 1  # the full stop of the sentence, not of an abbreviation
    return Found("date", match.start(), end, value)


def _numeric(match: re.Match[str], day_first: bool) -> str | None:
    if match["y"]:
        return _iso(int(match["y"]), int(match["m"]), int(match["d"]))
    if match["cy"]:
        return _iso(int(match["cy"]), int(match["cm"]), int(match["cd"]))
    year = int(match["year"])
    return _slashed(
        year if year > 99 else 2000 + year, int(match["one"]), int(match["two"]), day_first or match["sep"] != "/"
    )


def _slashed(year: int | None, one: int, two: int, day_first: bool) -> str | None:
    """The date of two numbers in doubtful order."""
    month_first = two > 12 or (not day_first and one <= 12)
    return _iso(year, *((one, two) if month_first else (two, one)))


def _iso(year: int | None, month: int, day: int) -> str | None:
    try:
        date(2000 if year is None else year, month, day)
    except ValueError:
        return None
    return f"--{month:02}-{day:02}" if year is None else f"{year}-{month:02}-{day:02}"


def times(scan: Scan) -> Iterator[Found]:
    """Times of day in figures: `14:30`, `2 pm`, `8 Uhr`, `14h30`."""
    text = scan.text
    for match in _CLOCK.finditer(text):
        minutes = match["m"] or match["hm"] or match["pm"]
        if (value := _time(int(match["h"]), int(minutes), match["half"])) is not None:
            yield Found("time", match.start(), _trimmed(text, match), value)
    for match in _HOUR.finditer(text):
        if (value := _time(int(match["h"]), int(match["uhr"] or 0), match["half"])) is not None:
            yield Found("time", match.start(), _trimmed(text, match), value)
    for match in _AT_CLOCK.finditer(text):
        yield Found("time", *match.span("time"), f"{int(match['h']):02}:{match['m']}")
    if not text.isascii() and has_any(text, _CJK_SIGNS):
        yield from _cjk_times(text)
    for match in _HOUR_AT.finditer(text):
        if (value := _time(int(match["h"]), 0, None)) is not None:
            yield Found("time", *match.span("time"), value)


def spelled_times(scan: Scan) -> Iterator[Found]:
    """Times of day in English words. Texts with none of SPELLED_TIME_HINTS have none."""
    for match in _O_CLOCK.finditer(scan.text):
        half = match["half"] or {"morning": "a", "afternoon": "p", "evening": "p"}.get(str(match["part"]).lower())
        yield Found("time", *match.span(), _time(_HOURS.index(match["h"].lower()) + 1, 0, half))
    for match in _PAST.finditer(scan.text):
        hour, minute = _HOURS.index(match["h"].lower()) + 1, 30 if match["part"].lower() == "half" else 15
        if match["side"].lower() == "to":
            hour, minute = (hour - 2) % 12 + 1, 60 - minute
        yield Found("time", *match.span(), f"{hour:02}:{minute:02}")


def _cjk_times(text: str) -> Iterator[Found]:
    """`14時30分`, `午後3時`."""
    for match in _CJK.finditer(text):
        afternoon = (match["half"] or "").strip() in ("午後", "下午", "오후")
        half = None if not match["half"] else "p" if afternoon else "a"
        if value := _time(int(match["h"]), 30 if match["mid"] else int(match["m"] or 0), half):
            yield Found("time", *match.span(), value)


def _trimmed(text: str, match: re.Match[str]) -> int:
    """The end without the full stop of a sentence that ends with `5 pm.`; that of `p.m.` stays."""
    end = match.end()
    return end - 1 if text[end - 1] == "." and text[end - 3 : end - 2] != "." else end


def _time(hour: int, minute: int, half: str | None) -> str | None:
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half in "pP" else 0)
    return f"{hour % 24:02}:{minute:02}" if hour < 24 or (hour == 24 and minute == 0) else None
