"""Units, currencies and per cent, as they stand after or before a number, in six languages. Pure.

A unit has a dimension and a factor, so that 5 km is 5,000 m and is not 5 m. A word may be several
(`pound`, `m`). What is not known here is no unit: then only the number counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A dimension, and how many of its base unit one is."""

    dimension: str = ""
    factor: float = 1.0


NONE = Unit()
PERCENT = Unit("percent")

_NAMES: Mapping[tuple[str, float], str] = {
    ("percent", 1): "% ٪ percent percents pct prozent procent pp prozentpunkte prozentpunkten",
    ("permille", 1): "‰ promille",
    ("dollar", 1): "$ us$ a$ c$ usd dollar dollars dollari dólar dólares cad aud",
    ("euro", 1): "€ eur euro euros",
    ("pound", 1): "£ gbp pound pounds pfund livre livres libra libras sterlina sterline quid",
    ("yen", 1): "¥ jpy yen",
    ("yuan", 1): "¥ cny rmb yuan 元",
    ("franc", 1): "chf franc francs franken franchi francos frank",
    ("rupee", 1): "₹ inr rs rupee rupees rupien",
    ("krona", 1): "kr sek nok dkk kronor kroner kronen",
    ("zloty", 1): "zł pln zloty",
    ("rouble", 1): "₽ rub rouble roubles rubel",
    ("won", 1): "₩ krw won",
    ("real", 1): "r$ brl reais",
    ("peso", 1): "mxn peso pesos",
    ("dollar", 0.01): "cents ct",
    ("euro", 0.01): "cents ct centimes centesimi céntimos centimos",
    ("pound", 0.01): "pence",
    ("metre", 1): "m metre metres meter meters mètre mètres metern metro metros metri",
    ("metre", 1000): "km kilometre kilometres kilometer kilometers kilomètre kilomètres kilometern "
    "kilómetro kilómetros chilometro chilometri kms",
    ("metre", 0.01): "cm centimetre centimetres centimeter centimeters centimètre centimètres "
    "zentimeter centímetro centímetros centimetro centimetri",
    ("metre", 0.001): "mm millimetre millimetres millimeter millimeters millimètre millimètres",
    ("metre", 1609.344): "mi mile miles meile meilen milles millas miglia mijl",
    ("metre", 1852): "nm nmi seemeile seemeilen",
    ("metre", 0.3048): "ft foot feet fuß",
    ("metre", 0.0254): "inch inches zoll pouces pulgadas pollici",
    ("metre", 0.9144): "yd yard yards",
    ("gram", 1): "g gram grams gramme grammes gramm gramo gramos grammo grammi",
    ("gram", 1000): "kg kilo kilos kilogram kilograms kilogramme kilogrammes kilogramm "
    "kilogramo kilogramos chilo chili chilogrammo chilogrammi",
    ("gram", 0.001): "mg milligram milligrams milligramme milligrammes milligramm miligramos",
    ("gram", 1e-6): "µg μg mcg microgram micrograms mikrogramm",
    ("gram", 1e6): "t tonne tonnes ton tons tonnen tonelada toneladas tonnellata tonnellate",
    ("gram", 453.59237): "lb lbs pound pounds pfund",
    ("gram", 28.349523125): "oz ounce ounces unzen onces",
    ("litre", 1): "l litre litres liter liters litern litro litros litri",
    ("litre", 0.001): "ml millilitre millilitres milliliter milliliters",
    ("litre", 0.01): "cl",
    ("litre", 100): "hl",
    ("litre", 3.785411784): "gal gallon gallons gallonen",
    ("second", 1): "s sec secs second seconds sekunde sekunden seconde secondes segundo segundos "
    "secondo secondi seconden",
    ("second", 0.001): "ms millisecond milliseconds millisekunden",
    ("second", 60): "min mins minute minutes minuten minuto minutos minuti minuut",
    ("second", 3600): "h hr hrs hour hours stunde stunden std heure heures hora horas ora ore uur "
    "uren",
    ("second", 86400): "day days tag tage tagen jour jours día días giorno giorni dag dagen 天",
    ("second", 604800): "week weeks woche wochen semaine semaines semana semanas settimana "
    "settimane weken",
    ("month", 1): "month months monat monate monaten mois mes meses mese mesi maand maanden 个月",
    ("month", 12): "year years yr yrs jahr jahre jahren année années ans año años anno anni jaar",
    ("degree C", 1): "°c celsius degree degrees grad ° degrés degré grados gradi graden",
    ("degree F", 1): "°f fahrenheit degree degrees grad ° degrés degré grados gradi graden",
    ("square metre", 1): "m² qm sqm m2",
    ("square metre", 1e6): "km² sqkm km2",
    ("square metre", 1e4): "ha hectare hectares hektar hectáreas ettari",
    ("square metre", 4046.8564224): "acre acres",
    ("cubic metre", 1): "m³ m3 cbm",
    ("speed", 1): "m/s",
    ("speed", 0.2777777777777778): "km/h kph kmh",
    ("speed", 0.44704): "mph",
    ("speed", 0.5144444444444445): "knot knots knoten nœuds kn nodos nodi",
    ("watt", 1): "W watt watts",
    ("watt", 1e3): "kW kilowatt kilowatts",
    ("watt", 1e6): "MW megawatt megawatts",
    ("watt", 1e9): "GW gigawatt gigawatts",
    ("watt hour", 1e3): "kWh kilowattstunden",
    ("watt hour", 1e6): "MWh",
    ("watt hour", 1e9): "GWh",
    ("volt", 1): "V volt volts",
    ("hertz", 1): "hz hertz",
    ("hertz", 1e6): "MHz",
    ("hertz", 1e9): "GHz",
    ("byte", 1): "byte bytes",
    ("byte", 1e3): "kB KB kilobyte kilobytes",
    ("byte", 1e6): "MB megabyte megabytes",
    ("byte", 1e9): "GB gigabyte gigabytes",
    ("byte", 1e12): "TB terabyte terabytes",
    ("byte", 1048576): "MiB",
    ("byte", 1073741824): "GiB",
}


def _by_name() -> Mapping[str, tuple[Unit, ...]]:
    units: dict[str, tuple[Unit, ...]] = {}
    for (dimension, factor), names in _NAMES.items():
        for name in names.split():
            units[name] = (*units.get(name, ()), Unit(dimension, factor))
    return units


_BY_NAME = _by_name()
_AFTER = re.compile(
    r"[^\S\n]?[-\u2010\u2011]?[^\S\n]{0,2}\n?[^\S\n]{0,2}"
    r"(?P<unit>%|٪|‰|°[^\S\n]?[CF]\b|°|(?:US|A|C|R)?[$€£¥₹₩₽]|m[²³23]\b|km[²2]\b|km/h\b|m/s\b|个月"
    r"|[元天]|[^\W\d_\u3040-\u9fff]+)"
)
_PER_CENT = re.compile(
    r"\s{0,2}(?:(?:per|pour|por)[^\S\n]?(?:cent|cento|ciento)\b"
    r"|(?:percentage|prozent)[- ]?(?:points?|punkte?n?)\b)",
    re.IGNORECASE,
)
_PER_HOUR = re.compile(
    r"[^\S\n]?(?:/|per|pro|par|por|all'|à l')[^\S\n]?(?:h|hour|stunde|heure|hora|ora|uur)\b",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:(?:US|A|C|R)?\$|[€£¥₹₩₽]"
    r"|(?<![^\W_])(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|Rs|SEK|NOK|DKK|PLN|CAD|AUD|BRL|MXN|KRW|RUB"
    r"|kr|Fr)\.?)[^\S\n]?\Z"
)
CURRENCIES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "RMB", "INR", "SEK", "NOK", "DKK", "PLN", "CAD"),
    *("AUD", "BRL", "MXN", "KRW", "RUB"),
)
"""Codes of currencies, which may stand right before a number."""


def units_after(text: str, at: int) -> tuple[tuple[Unit, ...], int]:
    """Return what the unit behind a number may be, and where it ends; none where there is none.

    >>> units_after("5 km away", 1)
    ((Unit(dimension='metre', factor=1000),), 4)
    """
    found = _PER_CENT.match(text, at)
    if found is not None:
        return (PERCENT,), found.end()
    found = _AFTER.match(text, at)
    if found is None:
        return (), at
    name = re.sub(r"\s", "", found["unit"])
    units = _BY_NAME.get(name)
    if units is None and (len(name) > 1 or not name.isalpha() or name in "MLGT"):
        units = _BY_NAME.get(name.casefold())
    if units is None:
        return (), at
    per_hour = _PER_HOUR.match(text, found.end())
    if per_hour is not None and units[0].dimension == "metre":
        return (Unit("speed", units[0].factor / 3600),), per_hour.end()
    return units, found.end()


def units_before(text: str, at: int) -> tuple[Unit, ...]:
    """Return what the currency in front of a number may be."""
    found = _BEFORE.search(text, max(0, at - 6), at)
    if found is None:
        return ()
    name = found[0].strip().rstrip(".").casefold()
    return _BY_NAME.get("chf" if name == "fr" else name, ())
