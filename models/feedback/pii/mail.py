"""E-mail addresses, plain or spelled out; secrets and crypto wallets."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

from models.feedback.pii.found import Found

_LOCAL_BACKWARDS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,254}")
_DOMAIN = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_TOP = r"(?:com|org|net|edu|gov|info|biz|io|co|ai|me|app|dev|eu|[a-z]{2})"
_SPELLED = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}"
    r"(?:\s?[(\[{<]\s?at\s?[)\]}>]\s?[\w-]{1,63}(?:\s?(?:\.|[(\[{<]\s?(?:dot|\.)\s?[)\]}>]|\sdot\s)\s?[\w-]{2,63}){1,4}"
    rf"|\sat\s[\w-]{{2,63}}(?:\sdot\s[\w-]{{2,63}}){{0,3}}?\sdot\s{_TOP}(?![\w-])"
    rf"|@[\w-]{{1,63}}(?:\s?[(\[{{]\s?(?:dot|\.)\s?[)\]}}]\s?[\w-]{{2,63}}){{1,4}})",
    re.I,
)
_SPELLED_SIGNS = re.compile(r"[(\[{<]\s?(?:at|dot|\.)\s?[)\]}>]|\sdot\s", re.I)


def emails(text: str) -> Iterator[Found]:
    """RFC 5321 addresses with Unicode in both parts, and `name (at) example (dot) com`."""
    at = text.find("@")
    while at >= 0:
        # Backwards from the at-sign: a search for the local part from every start would be quadratic.
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 254) : at][::-1])
        domain = _DOMAIN.match(text, at + 1)
        if local and domain and not domain[0].rpartition(".")[2][0].isdigit():
            yield Found("email", at - local.end(), domain.end())
        at = text.find("@", at + 1)
    if _SPELLED_SIGNS.search(text):
        for match in _SPELLED.finditer(text):
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
_PASSWORD_SIGNS = ("pass", "pwd", "pin", "cvv", "cvc", "security code", "otp")
_PASSWORD = re.compile(
    r"\b(?:pass(?:word|code|wd|phrase)|pwd|(?:my )?pin(?: code| number)?|cvv2?|cvc2?|security code|otp)"
    r"(?: is|'s| was|:| =|=)\s{0,3}(?P<value>(?=\S{0,63}\d)[^\s\[\]]{3,64})",
    re.I,
)
_WALLET = re.compile(
    r"(?<![A-Za-z0-9])(?:0x[0-9a-fA-F]{40}|bc1[02-9ac-hj-np-z]{11,71}|[13][1-9A-HJ-NP-Za-km-z]{25,34})\b"
)


def secrets(text: str) -> Iterator[Found]:
    """API keys by their prefix, private keys, and the word after "my password is" if it has a digit."""
    if any(sign in text for sign in _SECRET_SIGNS):
        for match in _SECRETS.finditer(text):
            yield Found("secret", *match.span())
    lowered = text.lower()
    if any(sign in lowered for sign in _PASSWORD_SIGNS):
        for match in _PASSWORD.finditer(text):
            yield Found("secret", *match.span("value"))


def wallets(text: str) -> Iterator[Found]:
    """Ethereum addresses by shape, Bitcoin addresses by checksum."""
    for match in _WALLET.finditer(text):
        if match[0].startswith(("0x", "bc1")) or importlib.import_module("stdnum.bitcoin").is_valid(match[0]):
            yield Found("wallet", *match.span())
