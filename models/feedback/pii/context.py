"""The kind of a number by the words around it: the same ten digits may be a phone number or an order number."""

from __future__ import annotations

import re
from typing import Literal, cast

Topic = Literal["phone", "card", "account", "iban", "id", "ref"]

REACH = 40  # characters before a number in which such words are searched

_WORDS: dict[Topic, str] = {
    "phone": r"phone|tele(?:ph|f)on\w*|téléphone|teléfono|t[eé]l|mobil\w*|móvil|mob|fon|ph|cell|handy"
    r"|whats ?app|signal|sms|fax"
    r"|call(?:ed|ing)?|text me|r[aiu]ng|dial|reach|contact|my (?:new |old |work |home |other )?(?:number|no)|numéro"
    r"|cellulare|celular|komórka|telefone|telefoon|gsm|tlf|tfn|nat[eé]l|n[uú]mero?"
    r"|ruf(?:en|t|nummer)|rufe? (?:mich|uns)|rückruf|(?:ll|ch)[aá]m\w*|r?appele[rz]"
    r"|joignable|bel (?:me|mij|ons|op|naar)|nummer (?:ist|lautet|är|is)|number is",
    "card": r"(?:credit |debit |bank |visa |master ?)card(?: number| no)?|card(?: number| no\b)|visa|amex|diners|jcb"
    r"|unionpay|maestro|karten?nummer|(?:kredit|debit|giro)?karte|carte(?: bancaire| bleue)?|tarjeta|carta di credito"
    r"|cartão|number on (?:the|my) card",
    "account": r"(?:bank )?account (?:number|no|nr)|acct|a/c|sort code|routing(?: number)?|konto(?:nummer|nr)?"
    r"|blz|cuenta",
    "iban": r"iban",
    "id": r"passport|reisepass|driv(?:er'?s?|ing) licen[cs]e|licen[cs]e (?:number|no)|national (?:id|insurance)"
    r"|identity (?:card|number)|id (?:card|number)|personal ?ausweis|tax (?:id|number|identification)\w*"
    r"|ssn|social (?:security|insurance)(?: number| no)?|nino|ni number|nhs(?: number)?|steuer-?(?:id|nummer)|idnr"
    r"|sécurité sociale|nir|dni|nie|nif|codice fiscale|bsn|burgerservicenummer|cpf|aadhaa?r|uidai|pan (?:card|number)"
    r"|pesel|personnummer|cpr|sin|tfn|tax file number|ahv|curp|rijksregisternummer|medicare",
    "ref": r"orders?|ordr|purchase|parcel|package|shipment|shipping|delivery|track\w*|inv(?:oice)?|receipt|bill|ref"
    r"|refer\w*|ticket|case|booking|item|article|sku|product|part|seri[ae]l?|série|seryjn\w*|model|version|transaction|confirmation|policy|claim"
    r"|quote|isin|code|barcode|batch|build|issue|commit|waybill|consignment|bestell\w*|sendung\w*"
    r"|customer (?:number|no|id)|ean|gtin|upc|sscc|isbn|issn|imei|asin|dhl|dpd|gls|ups|usps|fedex|hermes|evri"
    r"|paket\w*|päckchen|rechnung\w*|rg|auftrag\w*"
    r"|kunden?(?:nummer|nr)|kd|vorgang\w*|artikel\w*|seriennummer|aktenzeichen|commande|facture|colis|suivi|pedido|factura"
    r"|envío|paquete|ordine|fattura|pacco|spedizione|encomenda|fatura|zamówieni\w*|faktur\w*|paczk\w*|pakket|factuur|lotto",
}
_TOPIC = re.compile(r"\b(?:" + "|".join(f"(?P<{topic}>{words})" for topic, words in _WORDS.items()) + r")\b", re.I)
_SENTENCE = re.compile(r"[!?;]\s|(?<!\b(?:no|nr|ph))(?<!\b(?:t[eé]l|tlf|tfn|mob|fon|núm|num))\.\s", re.I)
_MONEY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:usd|eur|gbp|inr|chf|sek|nok|dkk|jpy|rs))\.? ?\Z", re.I)
_AMOUNT_AFTER = re.compile(
    r" ?(?:%|[$€£¥₹]|(?:shares|euros?|dollars?|pounds|usd|eur|gbp|units|mn|million|bn|billion|people|users|views)\b)",
    re.I,
)
_MINE_AFTER = re.compile(r"[\s,.-]{1,3}(?:is|was|are|=) (?:my|the) (?:\w+ )?(?:phone|mobile|cell|number|tel)", re.I)


def topic(text: str, start: int) -> Topic | None:
    """The topic of the nearest topic word before `start` in its sentence. Takes about 10 us: call once a number."""
    before = text[max(0, start - REACH) : start]
    if not before:
        return None
    for sentence in _SENTENCE.finditer(before):
        last = sentence.end()
        if not _SENTENCE.search(before, last):
            before = before[last:]
            break
    found = None
    for word in _TOPIC.finditer(before):
        found = word.lastgroup
    return cast(Topic | None, found)


def is_amount(text: str, start: int, end: int) -> bool:
    """Whether a currency or a unit is right before or after."""
    return bool(_MONEY_BEFORE.search(text[max(0, start - 6) : start]) or _AMOUNT_AFTER.match(text, end))


def named_a_phone_after(text: str, end: int) -> bool:
    return bool(_MINE_AFTER.match(text, end))
