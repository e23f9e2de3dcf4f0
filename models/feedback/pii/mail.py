"""E-mail addresses, plain or spelled out; secrets and crypto wallets."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence

from models.feedback.pii.found import Found
from models.feedback.pii.normal import UNSPACED

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
_SPELLED_HINTS = (*_SPELLED_WORDS, "@", "(", "[", "{", "<", "at_", "&", "%40", " ät ", "małpa")
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
    hints = _SPELLED_WORDS if only_words else _SPELLED_HINTS
    return has_any(text.lower(), hints) and bool(_SPELLED_SIGNS.search(text))


def has_any(text: str, parts: Sequence[str]) -> bool:
    """Whether one of the parts is in the text; half the time of `any` with a generator."""
    for part in parts:  # noqa: SIM110
        if part in text:
            return True
    return False


def emails(text: str) -> Iterator[Found]:
    """RFC 5321 addresses with Unicode in both parts, and spelled ones such as `name (at) example (dot) com`."""
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


_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"A(?:KI|SI)A[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{22,255}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}"  # Slack
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{10,250}|sk-[\w-]{20,250}"  # Stripe, OpenAI
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,64}|glpat-[\w-]{20,64}"
    r"|eyJ[\w-]{8,8000}\.[\w-]{8,8000}(?:\.[\w-]{0,8000})?"  # JSON Web Token
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s]{0,8000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?)"
)
_SECRET_SIGNS = (
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "xox",
    "k_live_",
    "k_test_",
    "sk-",
    "AIza",
    "hf_",
    "glpat-",
    "eyJ",
    "-----BEGIN",
)
_PASSWORD_SIGNS = ("pass", "pwd", "pin", "cvv", "cvc", "security code", "otp", "kennwort", "contraseña")
_PASSWORD = re.compile(
    r"\b(?:pass(?:w(?:or)?d|wort|code|phrase)|kennwort|mot de passe|contraseña|pwd"
    r"|(?:my )?pin(?: code| number)?|cvv2?|cvc2?|security code|otp)"
    r"(?: is| ist| lautet| est| es|'s| was| ?:| ?=)\s{0,3}(?P<value>(?=\S{0,63}\d)[^\s\[\]]{3,64})",
    re.I,
)
_TOKEN = re.compile(
    r"(?:[?&#](?:[\w-]{0,30}?(?:token|secret|passw(?:or)?d|pwd|api[_-]?key|signature|session|jwt|otp)[\w-]{0,12}"
    r"|key|sig|sid|auth|code|hash|pass|reset|verify|invite)=(?=[^\s&#]{0,63}\d)"
    r"|\bbearer\s{1,3}(?=\S{0,63}\d)(?=\S{0,63}[a-z])(?=\S{16})"
    r"|\b(?:(?:api|access|auth|secret|client|private|refresh|session)[ _-]?(?:key|token|secret|id)|token)"
    r"(?: is| ?:| ?=)?\s{0,2}[\"']?(?=\S{0,63}\d)(?=\S{0,63}[a-z])(?=[\w.~+/=-]{16}))"
    r"(?P<value>[^\s&#\"'<>\[\](){},;]{6,4000})",
    re.I,
)
_TOKEN_SIGNS = ("=", "bearer", "token", "key", "secret", "session")
# A segment of a path that is no word: 32 hexadecimal digits, or as many letters of both cases and digits.
_PATH_TOKEN = re.compile(
    r"(?<=/)(?:(?=[0-9a-f]{0,127}\d)[0-9a-fA-F]{32,128}"
    r"|(?=[\w-]{0,63}\d)(?=[\w-]{0,63}[a-z])(?=[\w-]{0,63}[A-Z])[\w-]{32,512})(?![\w-])"
)
_LOGIN_SIGNS = ("user", "login", "nutzer", "usuario", "utilisateur", "utente")
_LOGIN = re.compile(
    r"\b(?:(?:user ?(?:name|id)|log-?in(?: name)?|(?:be)?nutzername|nombre de usuario|nom d'utilisateur|nome utente)"
    r"(?: is| ist| lautet| est| es| è| ?:| ?=)\s{0,3}|user ?name )"
    r"(?P<value>(?=[\w.-]{0,63}[\d_])[^\W\d_][\w.-]{1,62}[^\W_])(?![\w@])",
    re.I,
)
_WALLET = re.compile(
    r"(?<![A-Za-z0-9])(?:0x[0-9a-fA-F]{40}|bc1[02-9ac-hj-np-z]{11,71}|[13][1-9A-HJ-NP-Za-km-z]{25,34})\b"
)


def logins(text: str) -> Iterator[Found]:
    """The word after "my user name is" if it has a digit or an underscore, as a name."""
    if has_any(text.lower(), _LOGIN_SIGNS):
        for match in _LOGIN.finditer(text):
            yield Found("name", *match.span("value"))


def secrets(text: str) -> Iterator[Found]:
    """API keys by their prefix, private keys, tokens and logins in URLs, the word after "my password is".

    Tokens and passwords must have a digit.
    """
    if has_any(text, _SECRET_SIGNS):
        for match in _SECRETS.finditer(text):
            yield Found("secret", *match.span())
    lowered = text.lower()
    if has_any(lowered, _PASSWORD_SIGNS):
        for match in _PASSWORD.finditer(text):
            yield Found("secret", *match.span("value"))
    if has_any(lowered, _TOKEN_SIGNS):
        for match in _TOKEN.finditer(text):
            yield Found("secret", *match.span("value"))
    if "://" in text:
        for match in _URL_LOGIN.finditer(text):
            yield Found("secret", *match.span("value"))
        for match in _PATH_TOKEN.finditer(text):
            yield Found("secret", *match.span())


def wallets(text: str) -> Iterator[Found]:
    """Ethereum addresses by shape, Bitcoin addresses by checksum."""
    for match in _WALLET.finditer(text):
        if match[0].startswith(("0x", "bc1")) or importlib.import_module("stdnum.bitcoin").is_valid(match[0]):
            yield Found("wallet", *match.span())
