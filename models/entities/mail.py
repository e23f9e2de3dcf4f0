"""E-mail addresses, plain or spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from models.entities.normal import UNSPACED
from models.entities.scan import Scan
from models.entities.types import Found

# A mail address ends where a script without spaces begins, unless it is written in that script itself.
_SIGNS = "!#$%&'*+/=?^`{|}~.\u00b7-"  # of a local part, beside letters and digits
_LOCAL_BACKWARDS = re.compile(rf'(?:[^\W{UNSPACED}]|[{_SIGNS}]){{1,254}}|[\w{_SIGNS}]{{1,254}}|"[^"\n@]{{1,64}}"')
# At the beginning of what could be a local part: a URL, a parameter, quotes.
_NO_PART = re.compile(r"(?:[^@]{0,254}[/?&#|])?(?:[\w-]{1,30}=)?['`*]*")
_LABEL = rf"(?:[^\W{UNSPACED}]|-){{1,63}}"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{1,8}}|[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}}")
_URL_LOGIN = re.compile(r"://(?P<value>[^\s/@:\[\]]{1,64}:[^\s/@\[\]]{1,128})@")

_MAILBOXES = (
    r"(?:(?:gmail|googlemail|yahoo|hotmail|outlook|live|msn|icloud|aol|gmx|proton(?:mail)?|yandex|zoho|fastmail)"
    r"(?:\.com?)?\.[a-z]{2,3}|(?:web|t-online|freenet|posteo|arcor)\.de|(?:orange|wanadoo|free|laposte|sfr)\.fr"
    r"|(?:libero|virgilio|tiscali|alice)\.it|(?:wp|o2|onet|interia)\.pl|(?:mail|bk|inbox|list)\.ru"
    r"|(?:qq|163|126|naver|mail|me|mac|btinternet|comcast|verizon|rediffmail|tutanota|hey)\.(?:com|net)|pm\.me"
    r"|(?:bluewin|gmx)\.ch|(?:ziggo|kpnmail|planet)\.nl|telenet\.be|(?:uol|bol|terra)\.com\.br)(?![\w-]|\.\w)"
)
_MAILBOX_NAMES = r"(?:gmail|googlemail|yahoo|hotmail|outlook|icloud|gmx|protonmail)(?![\w-]|\.\w)"
_TOP = r"(?:com|org|net|edu|gov|info|biz|io|co|ai|me|app|dev|eu|[a-z]{2})(?![\w-])"
_OPEN, _CLOSE = r"\s?[(\[{<]{1,3}\s?", r"\s?[)\]}>]{1,3}\s?"
_AT_WORDS = r"(?:arroba|arobase|chiocciola|ma[łl]pa|klammeraffe)"
_DOT_WORDS = r"(?:dot|punkt|punto|point|ponto|kropka)"
_DOT = rf"(?:\.|{_OPEN}(?:{_DOT_WORDS}|\.){_CLOSE}|\s{_DOT_WORDS}\s)"  # after an at-sign that can be nothing else
_SPELLED_DOT = rf"(?:{_OPEN}(?:dot|punkt|\.){_CLOSE}|\s(?:dot|punkt)\s)"
_NOT_A_HOST = r"(?!(?:the|an?|this|that|my|your|his|her|its|our|their|each|every|which|what|some|any|one)\b)"
_NOT_A_NAME = (
    r"(?!(?:in|on|up|out|is|are|am|was|be|it|me|us|here|there|back|account|mail|e-?mail|inbox|address|page|site|login"
    r"|available|works?|used|only|and|or|but|not|also)\s)"
)
_HOST_PART = r"[\w-]{1,63}+"
# Possessive quantifiers (+ after a count) keep the search linear.
_LOCAL = (
    r"(?<![\w.+-])(?P<local>[\w+-][\w.+'-]{0,63}+"
    rf"(?:(?:{_OPEN}{_DOT_WORDS}{_CLOSE}|\s(?:dot|punkt|punto|ponto)\s)[\w+-]{{1,63}}+){{0,3}})"
)
_AFTER_LOCAL = (
    rf"(?:{_OPEN}(?:at|ät|ätt|@|{_AT_WORDS}){_CLOSE}|[(\[]a[)\]]|&#0{{0,3}}64;|&#x40;|&commat;|%40|\s{_AT_WORDS}\s)"
    rf"{_HOST_PART}(?:{_DOT}[\w-]{{2,63}}+){{1,4}}",
    rf"\sat\s{_NOT_A_HOST}[\w-]{{2,63}}+(?:{_SPELLED_DOT}[\w-]{{2,63}}+){{0,3}}{_SPELLED_DOT}{_TOP}",
    rf"\s(?:(?:at|ät)\s|@){_MAILBOXES}",
    rf"(?:\s@\s|@\s){_HOST_PART}(?:{_DOT}{_HOST_PART}){{0,3}}{_DOT}[a-z]{{2,24}}(?![\w-])",
    rf"@{_HOST_PART}(?:(?:\.{_HOST_PART})*+{_OPEN}(?:{_DOT_WORDS}|\.){_CLOSE}[\w-]{{2,63}}+){{1,4}}",
    rf"@{_HOST_PART},\s?(?:com|net|org|de|fr|it|es|nl|pl)(?![\w-])",
    rf"\s?@\s?{_HOST_PART}\s?\.\s?(?:com|net|org)(?![\w-])",  # not `it`, a word after a full stop
    rf"@{_MAILBOX_NAMES}",
)
_SPELLED = re.compile(rf"{_LOCAL}(?:{'|'.join(_AFTER_LOCAL)})", re.I)
# jane.doe at example.com: only a local part of two parts, or "Sale at example.com" would be one.
_SPOKEN = re.compile(
    r"(?<![\w.+@-])(?:[a-z]{2,32}+(?:[._][a-z]{2,32}+){1,3}"
    r"\s(?:at|ät)\s[\w-]{2,63}+(?:\.[\w-]{2,63}+){0,3}?\.[a-z]{2,24}(?![\w-])"
    rf"|[a-z][\w+-]{{0,63}}+[._][\w.+-]{{1,63}}+\s(?:at|ät)\s{_MAILBOX_NAMES})",
    re.I,
)
# jane -at- example -dot- com, jane_at_example_dot_com
_WRAPPED = re.compile(
    r"(?<![\w.+-])[a-z0-9.+]{1,64}+(?:\s?(?P<dot>[-_*])dot(?P=dot)\s?[a-z0-9.+]{1,64}+){0,3}"
    r"\s?(?P<at>[-_*])at(?P=at)\s?[a-z0-9]{1,63}+(?:(?:\.|\s?(?P=at)dot(?P=at)\s?)[a-z0-9]{2,63}+){1,4}(?![\w-])",
    re.I,
)
_SPELLED_WORDS = (" at ", "at-", "at*", "arroba", "arobase", "chiocciola", "malpa", "klammeraffe")
SPELLED_HINTS = (*_SPELLED_WORDS, "@", "(", "[", "{", "<", "at_", "&", "%40", " ät ", "małpa")
_NO_LOCAL = re.compile(_NOT_A_NAME, re.I)
_SPELLED_SIGNS = re.compile(
    rf"[(\[{{<]\s?(?:at|ät|ätt|a|@|\.|{_DOT_WORDS}|{_AT_WORDS})\s?[)\]}}>]|\s(?:at|ät|{_AT_WORDS})\s"
    rf"|@\s|\s@[a-z]|@[\w-]+(?:,|\s\.|\.\s)|@{_MAILBOX_NAMES}|[-_*]at[-_*]|&#|&commat;|%40",
    re.I,
)


def is_spelled(text: str, *, only_words: bool = False) -> bool:
    """A quick check whether the text has a sign of an address that is not written with a plain at-sign.

    With `only_words` the text is ASCII without digits, at-signs, underscores and opening brackets.
    """
    # Substrings first: the pattern takes four times as long, and few texts have any of these.
    hints = _SPELLED_WORDS if only_words else SPELLED_HINTS
    return has_any(text.lower(), hints) and bool(_SPELLED_SIGNS.search(text))


def has_any(text: str, parts: Sequence[str]) -> bool:
    """Whether one of the parts is in the text; half the time of `any` with a generator."""
    for part in parts:  # noqa: SIM110
        if part in text:
            return True
    return False


def emails(scan: Scan) -> Iterator[Found]:
    """RFC 5321 addresses with Unicode in both parts, and spelled ones such as `name (at) example (dot) com`."""
    text = scan.text
    logins = {login.end("value") for login in _URL_LOGIN.finditer(text)} if "://" in text else ()
    at = text.find("@")
    while at >= 0:
        # Backwards from the at-sign: a search for the local part from every start would be quadratic.
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 254) : at][::-1])
        domain = _DOMAIN.match(text, at + 1)
        if local and domain and not domain[0].rpartition(".")[2][0].isdigit() and at not in logins:
            before = _NO_PART.match(text, at - local.end(), at)
            start = before.end() if before and before.end() < at else at - local.end()
            yield Found("email", start, domain.end())
        at = text.find("@", at + 1)
    if is_spelled(text):
        for match in _SPELLED.finditer(text):
            if re.search(r"[^\W\d_]", match["local"]) and _NO_LOCAL.match(match[0]):
                yield Found("email", *match.span())
        for pattern in (_SPOKEN, _WRAPPED):
            for match in pattern.finditer(text):
                yield Found("email", *match.span())
