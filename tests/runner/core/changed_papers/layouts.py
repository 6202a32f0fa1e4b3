"""Known bills of eight layouts in four languages, and the values of the n-th paper."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

LANGUAGES = ("en", "de", "fr", "es")
_WORDS = """
title|INVOICE|RECHNUNG|FACTURE|FACTURA
number|Invoice no.|Rechnungsnummer|Facture n°|Factura n.º
date|Date|Datum|Date|Fecha
due|Payable by|Zahlbar bis|Payable avant le|Vence el
customer|Customer no.|Kundennummer|N° client|N.º cliente
net|Net amount|Nettobetrag|Montant HT|Base imponible
tax|VAT 20%|MwSt. 19%|TVA 20%|IVA 21%
total|Total payable|Gesamtbetrag|Total TTC|Total factura
article|Article|Artikel|Article|Artículo
quantity|Quantity|Menge|Quantité|Cantidad
price|Price|Preis|Prix|Precio
amount|Amount|Betrag|Montant|Importe
hello|Dear customer,|Sehr geehrte Damen und Herren,|Madame, Monsieur,|Estimado cliente:
bye|Kind regards|Mit freundlichen Grüßen|Cordialement|Atentamente
clerk|Your contact|Ihr Ansprechpartner|Votre contact|Su contacto
page|Page|Seite|Page|Página
of|of|von|sur|de
printed|Printed|Gedruckt|Imprimé|Impreso
charge|For our work we charge|Wir berechnen|Nous facturons|Por el trabajo facturamos
plus|plus tax of|zuzüglich Steuer von|plus la taxe de|más impuestos de
remit|Please remit|Bitte überweisen Sie|Merci de régler|Rogamos abonen
until|by|bis zum|avant le|antes del
"""
WORDS = {
    lang: {row.split("|")[0]: row.split("|")[n] for row in _WORDS.strip().splitlines()}
    for n, lang in enumerate(LANGUAGES, 1)
}
SENDERS = {
    "en": ("Quillon Sailmakers", "9 Ropewalk, Ferrol"),
    "de": ("Tischlerei Ahrens", "Deichweg 3, 25813 Husum"),
    "fr": ("Imprimerie Vallier", "12 rue du Port, Nantes"),
    "es": ("Talleres Ibarra", "Calle Mayor 4, Bilbao"),
}
ARTICLES = {
    "en": "Oak board|Copier paper|Floor wax|Lunch platter|Brass lamp|Potting soil|Rope, white|Desk",
    "de": "Eichenbrett|Kopierpapier|Bodenwachs|Lampe|Blumenerde|Seil, weiß|Schreibtisch|Griffe",
    "fr": "Planche de chêne|Papier|Cire|Plateau repas|Lampe|Terreau|Corde blanche|Bureau",
    "es": "Tablero de roble|Papel|Cera|Bandeja|Lámpara|Tierra|Cuerda blanca|Escritorio",
}
CLERKS = ("Anna Brandt", "Paul Keller", "Marie Dubois", "Lucia Moreno", "Ove Dahl", "Iris Vance")
RATES = {"en": 20, "de": 19, "fr": 20, "es": 21}
_NUMBERS = {"en": "QS-{}", "de": "RE-2027-0{}", "fr": "FA{}", "es": "F27/{}"}
_DAYS = {"en": "%Y-%m-%d", "de": "%d.%m.%Y", "fr": "%d/%m/%Y", "es": "%d/%m/%Y"}
_MARKS = {"en": ",.", "de": ".,", "fr": " ,", "es": ".,"}
_MONEY = {"en": ("{} EUR", "£{}"), "de": ("{} EUR", "{} €"), "fr": ("{} EUR", "{} €")}
_HEAD = "{sender}\n<address>\n\n<title>\n\nHarbour Office Brae\n\n"

TEMPLATES = {
    "labels": _HEAD + "<number>: {number}\n<customer>: {customer}\n<date>: {date}\n\n<hello>\n\n"
    "<article>   <quantity>   <price>   <amount>\n{items}\n\n"
    "<net>: {net}\n<tax>: {tax}\n<total>: {total}\n\n<bye>\n",
    "columns": "{sender}                <address>\n\n<title>\n\nHarbour Office Brae\n\n"
    "<number>   {number}        <date>   {date}\n<customer>   {customer}        <due>   {due}\n\n"
    "<article>        <quantity>        <price>        <amount>\n{items}\n\n"
    "                    <net>   {net}\n                    <tax>   {tax}\n"
    "                    <total>   {total}\n\n<bye>\nIBAN {iban}\n",
    "above": _HEAD + "<number>\n{number}\n\n<date>\n{date}\n\n<customer>\n{customer}\n\n<hello>\n\n"
    "<article>   <quantity>   <price>   <amount>\n{items}\n\n<net>\n{net}\n\n<tax>\n{tax}\n\n"
    "<total>\n{total}\n\n<bye>\n",
    "table": _HEAD + "| <number> | <date> | <customer> |\n| --- | --- | --- |\n"
    "| {number} | {date} | {customer} |\n\n<hello>\n\n| <article> | <quantity> | <price> "
    "| <amount> |\n| --- | --- | --- | --- |\n{items}\n| <net> | | | {net} |\n"
    "| <tax> | | | {tax} |\n| <total> | | | {total} |\n\n<bye>\n",
    "foot": _HEAD + "<number>: {number}\n<date>: {date}\n<customer>: {customer}\n<due>: {due}\n\n"
    "<hello>\n\n| <article> | <quantity> | <price> | <amount> |\n| --- | --- | --- | --- |\n"
    "{items}\n\n| <net> | <tax> | <total> |\n| --- | --- | --- |\n"
    "| {net} | {tax} | {total} |\n\n<bye>\n",
    "sentence": "{sender}\n<address>\n\nHarbour Office Brae\n\n<hello>\n\n<title> {number}, "
    "{date}, <customer> {customer}.\n\n<charge> {net} <plus> {tax}. "
    "<remit> {total} <until> {due}.\n\n<bye>\n",
    "varied": _HEAD + "<number>: {number}\n<date>: {date}\n<customer>: {customer}\n<clerk>: {clerk}"
    "\n\n<hello>\n\n{remark}{items}\n\n{discount}<net>: {net}\n<tax>: {tax}\n<total>: {total}\n\n"
    "<bye>\n<page> {page} <of> {pages}\n",
    "account": _HEAD + "<number> {number}\n<date> {date}\n<customer> {customer}\n<due> {due}\n\n"
    "{items}\n\n<net> {net}\n<tax> {tax}\n<total> {total}\n\n<bye>\n\nIBAN: {iban}\n"
    "<printed>: {printed}\n",
}
_ROW = {
    "labels": "{0}   {1}   {2}   {3}",
    "columns": "{0}        {1}        {2}        {3}",
    "above": "{0}   {1}   {2}   {3}",
    "table": "| {0} | {1} | {2} | {3} |",
    "foot": "| {0} | {1} | {2} | {3} |",
    "varied": "{0}   {3}",
    "account": "{1} x {0}   {2}   {3}",
}
_PAIR = {
    "columns": "                    {0}   {1}",
    "above": "{0}\n{1}",
    "account": "{0} {1}",
    "sentence": "{0} {1}.",
}
REMARKS = {
    "en": ("The goods were left at the gate.", "Your colleague has signed for them."),
    "de": ("Die Ware steht am Tor.", "Ihre Kollegin hat dafür unterschrieben."),
    "fr": ("Les articles sont au portail.", "Votre collègue a signé pour cela."),
    "es": ("La mercancía está en la puerta.", "Su compañera ha firmado."),
}
_DISCOUNT = {"en": "Discount", "de": "Rabatt", "fr": "Remise", "es": "Descuento"}


def amount(cents: int, lang: str) -> str:
    thousands, point = tuple(_MARKS[lang])
    whole = f"{abs(cents) // 100:,}".replace(",", thousands)
    return f"{'-' if cents < 0 else ''}{whole}{point}{abs(cents) % 100:02}"


def pair(layout: str, label: str, value: str, beside: str) -> str:
    """Return a line with a label and its value as the neighbours of `beside` are written."""
    row = " | | | " in beside
    return ("| {0} | | | {1} |" if row else _PAIR.get(layout, "{0}: {1}")).format(label, value)


class Bill:
    """The n-th paper of a sender: its template, values and what is right; all may be changed."""

    def __init__(self, layout: str, lang: str, n: int, items: Sequence[int] = ()) -> None:
        self.layout, self.lang, self.n = layout, lang, n
        self.template = TEMPLATES[layout]
        self.words = {**WORDS[lang], "address": SENDERS[lang][1]}
        self.sender = SENDERS[lang][0]
        self.day = dt.date(2027, 5, 4) + dt.timedelta(days=7 * n)
        self.day_form, self.number = _DAYS[lang], _NUMBERS[lang].format(401 + n)
        names = ARTICLES[lang].split("|")
        sums = items or [(4 + n * 7) * 1000, *[(11 + n * 3) * 500] * (n % 2), (2 + n) * 1500]
        self.items = [(names[(3 * n + i) % len(names)], cents) for i, cents in enumerate(sums)]
        self.discount = 1000 if layout == "varied" and n == 2 else 0
        self.remark = REMARKS[lang][0] if layout == "varied" and n == 1 else ""
        self.forms = {"money": _MONEY.get(lang, _MONEY["de"])[n_of(layout) % 2]}
        self.row_form = _ROW.get(layout, "")
        self.quantities: Sequence[int | str] = (2, 1, 4)
        self.more: dict[str, str] = {}

    def money(self, cents: int) -> str:
        return "-" * (cents < 0) + self.forms["money"].format(amount(abs(cents), self.lang))

    def row(self, n: int, name: str, cents: int) -> str:
        quantity = self.quantities[n % len(self.quantities)]
        price = amount(cents // int(str(quantity).split()[0]), self.lang)
        return self.row_form.format(name, quantity, price, amount(cents, self.lang))

    def sums(self) -> tuple[int, int, int]:
        net = sum(cents for _, cents in self.items) - self.discount
        tax = round(net * RATES[self.lang] / 100)
        return net, tax, net + tax

    def values(self) -> dict[str, str]:
        """Return the text of each slot; a slot with a 2 is another value of the same form."""
        net, tax, total = self.sums()
        day, n, lang = self.day, self.n, self.lang
        discount = pair(self.layout, _DISCOUNT[lang], self.money(-self.discount), "")
        values = {
            "sender": self.sender,
            "number": self.number,
            "number2": _NUMBERS[lang].format(577 + n),
            "old": _NUMBERS[lang].format(390),
            "customer": "H-3",
            "date": day.strftime(self.day_form),
            "date2": (day + dt.timedelta(days=16)).strftime(self.day_form),
            "due": (day + dt.timedelta(days=30)).strftime(self.day_form),
            "printed": day.strftime(self.day_form) + f" {8 + n}:4{n}",
            "items": "\n".join(self.row(i, name, c) for i, (name, c) in enumerate(self.items)),
            "less": self.money(3000),
            "rest": self.money(total - 3000),
            "clerk": CLERKS[n % 3],
            "remark": self.remark and self.remark + "\n\n",
            "discount": discount + "\n" if self.discount else "",
            "iban": "AT61 1904 3002 3457 3201",
            "page": "1",
            "pages": "1",
            "total_zero_width": amount(total, lang)[0] + "\u200b" + self.money(total)[1:],
        }
        for name, cents in zip(("net", "tax", "total"), (net, tax, total), strict=True):
            values |= {name: self.money(cents), name + "_n": amount(cents, lang)}
            values[name + "2"] = self.money(cents + 10000)
        return values | self.more

    def text(self) -> str:
        text = self.template
        for name, word in self.words.items():
            text = text.replace(f"<{name}>", word)
        for name, value in self.values().items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "kind": "invoice",
            "sender": self.sender,
            "number": self.number,
            "date": self.day.isoformat(),
            "total": self.sums()[2] / 100,
            "currency": "GBP" if "£" in self.forms["money"] else "EUR",
        }
        if "{due}" in TEMPLATES[self.layout]:
            answer["due"] = (self.day + dt.timedelta(days=30)).isoformat()
        return answer


def n_of(layout: str) -> int:
    return list(TEMPLATES).index(layout)


def decided(layout: str, lang: str, count: int) -> list[Bill]:
    return [Bill(layout, lang, n) for n in range(count)]


def case(
    name: str, before: Sequence[Bill], bill: Bill, asks: Sequence[str] = ()
) -> Mapping[str, Any]:
    right = {f: "<ask>" if f in asks else value for f, value in bill.answer().items()}
    taught = [[paper.text(), paper.answer()] for paper in before]
    return {"case": name, "decided": taught, "next": bill.text(), "right": right}
