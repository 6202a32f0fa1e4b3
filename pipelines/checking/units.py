"""Units and currencies next to a number: per cent, points, money, measures.

They are read in the languages that `_UNIT_NAMES` has; a unit has a dimension and a factor, so that
5 km is 5,000 m and is not 5 m. An unknown word is not a unit: then only the number counts.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A dimension, and the factor to its base unit."""

    dimension: str = ""
    factor: float = 1.0


NO_UNIT = Unit()
PERCENT = Unit("percent")
TIMES = Unit("times")
NOT_TIMES = Unit("times", -1.0)
"""Of a side or a factor: what is 2 x 4 is not twice as much."""

_UNIT_NAMES: Mapping[tuple[str, float], str] = {
    ("percent", 1): "% ٪ ％ percent percents pct prozent procent procenta procentů proc prosent "
    "prosenttia százalék процент процента процентов процентами процентах відсотків відсотки "
    "відсотка phần persen yüzde प्रतिशत 퍼센트 パーセント אחוז אחוזים procente",
    ("percentage point", 1): "pp ppt ppts prozentpunkt prozentpunkte prozentpunkten "
    "procentpunten procentpunt procentenheter procentenhet procentpoint prosentpoeng "
    "prosenttiyksikköä 百分点 百分點 个百分点 個百分點 ポイント 퍼센트포인트 п.п",
    ("percentage point", 0.01): "bps bp basispunkt basispunkte basispunkten basispunten "
    "räntepunkter 基点 bips",
    ("percent", 10): "割 成",
    ("permille", 1): "‰ promille",
    ("US dollar", 1): "$ us$ usd dollar dollars dollari dólar dólares доллар доллара долларов "
    "dolarów dolary dolar dolar* доллар* دولار دولارا 美元 ドル 달러 долара dolára dolárov "
    "dollaria dollár dollárra",
    ("Canadian dollar", 1): "$ c$ ca$ cad dollar dollars",
    ("Australian dollar", 1): "$ a$ au$ aud dollar dollars",
    ("Hong Kong dollar", 1): "$ hk$ hkd dollar dollars",
    ("Singapore dollar", 1): "$ s$ sgd dollar dollars",
    ("New Zealand dollar", 1): "$ nz$ nzd dollar dollars",
    (
        "euro",
        1,
    ): "€ eur euro euros евро євро 欧元 ユーロ 유로 eura avro avro* يورو eura eurá eur евра "
    "евре евру ευρώ euróra euroa euron eurosta euroon eurolla euró eurót",
    ("pound", 1): "£ gbp pound pounds pfund livre livres libra libras sterlina sterline quid",
    ("yen", 1): "¥ jpy yen 円 ￥",
    ("yuan", 1): "¥ cny rmb yuan 元 圆 圓 人民币 ￥",
    ("franc", 1): "chf franc francs franken franchi francos frank",
    ("rupee", 1): "₹ inr روبية rs rupee rupees rupien रुपये रुपए",
    ("Swedish krona", 1): "kr sek kronor krona kronen",
    ("Norwegian krone", 1): "kr nok kroner krone kronen",
    ("Danish krone", 1): "kr dkk kroner krone kronen",
    ("zloty", 1): "zł pln zloty złot*",
    ("rouble", 1): "₽ rub rouble roubles rubel руб рубл*",
    ("hryvnia", 1): "₴ uah грн гривень",
    ("Czech koruna", 1): "kč czk korun koruny korun*",
    ("forint", 1): "ft huf forint forint*",
    ("lira", 1): "₺ tl try lira lira*",
    ("leu", 1): "ron lei",
    ("shekel", 1): "₪ ils nis שקל שקלים",
    ("baht", 1): "฿ thb baht บาท",
    ("rand", 1): "zar rand",
    ("dirham", 1): "د.إ د.م aed dirham dirhams درهم درهما دراهم",
    ("riyal", 1): "ر.س ر.ق sar riyal riyals ريال ريالا ريالات",
    ("dinar", 1): "د.أ د.ك د.ع د.ت د.ب kwd jod dinar dinars دينار دينارا دنانير rsd din динар*",
    ("Egyptian pound", 1): "ج.م egp جنيه جنيها جنيهات",
    ("lev", 1): "bgn лв лева лев",
    ("won", 1): "₩ krw won 원",
    ("real", 1): "r$ brl reais",
    ("peso", 1): "mxn peso pesos",
    ("US dollar", 0.01): "cents ct",
    ("euro", 0.01): "cents ct centimes centesimi céntimos centimos",
    ("pound", 0.01): "pence",
    ("metre", 1): "متر مترا أمتار metre* м 米 m metre metres meter meters mètre mètres metern "
    "metro metros metri",
    ("metre", 1000): "км 公里 كم كيلومتر كيلومترا كيلومترات quilómetros quilômetros quilómetro "
    "kilometre* km kilometre kilometres kilometer kilometers kilomètre kilomètres kilometern "
    "kilómetro kilómetros chilometro chilometri kms kilometr* километ* kilometri*",
    ("metre", 0.01): "سم سنتيمتر سنتيمترا سنتيمترات سنتمتر cm centimetre centimetres centimeter "
    "centimeters centimètre centimètres zentimeter centímetro centímetros centimetro centimetri",
    ("metre", 0.001): "ملم مم مليمتر مليمترا مليمترات mm millimetre millimetres millimeter "
    "millimeters millimètre millimètres",
    ("metre", 1609.344): "mi mile miles meile meilen milles millas miglia mijl",
    ("metre", 1852): "nm nmi seemeile seemeilen",
    ("metre", 0.3048): "ft foot feet fuß",
    ("metre", 0.0254): "inch inches zoll pouces pulgadas pollici",
    ("metre", 0.9144): "yd yard yards",
    ("gram", 1): "غرام غراما غرامات جرام грамм* г 克 g gram grams gramme grammes gramm gramo "
    "gramos grammo grammi",
    ("gram", 1000): "кг 公斤 千克 كغ كجم كيلو كيلوغرام كيلوغراما كيلوغرامات كيلوجرام كيلوجرامات "
    "килограмм* quilo quilos quilogramas kg kilo kilos kilogram kilograms kilogramme kilogrammes "
    "kilogramm kilogramo kilogramos chilo chili chilogrammo chilogrammi",
    ("gram", 0.001): "мг 毫克 ملغ ملغم مغ ملليغرام миллиграмм* mg milligram milligrams milligramme "
    "milligrammes milligramm miligramos",
    ("gram", 1e-6): "µg μg mcg microgram micrograms mikrogramm",
    ("gram", 1e6): "т тонн тонны 吨 トン طن طنا أطنان t tonne tonnes ton tons tonnen tonelada "
    "toneladas tonnellata tonnellate",
    ("gram", 453.59237): "lb lbs pound pounds pfund libbra libbre libra libras livres funt*",
    ("gram", 28.349523125): "oz ounce ounces unzen onces",
    ("litre", 1): "لتر لترا لترات ليتر л 升 l litre litres liter liters litern litro litros litri "
    "litr litru litrů litra litara литра литар литр литров",
    ("litre", 0.001): "مل ملليلتر ml millilitre millilitres milliliter milliliters",
    ("litre", 0.01): "cl",
    ("litre", 100): "hl",
    ("litre", 3.785411784): "gal gallon gallons gallonen",
    ("second", 1): "saniye saniye* секунд* sekund* ثانية ثوان ثواني 秒 초 s sec secs second "
    "seconds sekunde sekunden seconde secondes segundo segundos secondo secondi seconden",
    ("second", 0.001): "ms millisecond milliseconds millisekunden",
    (
        "second",
        60,
    ): "دقيقة دقائق 分 dakika* минут* minuty minut минут минуты minuter dakika 分钟 分間 "
    "분 min mins minute minutes minuten minuto minutos minuti minuut",
    ("second", 3600): "ساعة ساعات saat* godzin* часам часах godz godzin godziny час часа часов "
    "timmar timer hodin saat 小时 時間 시간 h hr hrs hour hours stunde stunden std heure heures "
    "hora horas ora ore uur uren tunti tuntia tunnin óra órás órát сата сати sata sati घंटे घंटा",
    ("second", 86400): "يوم يوما أيام gün* dni dzień день дня дней dagar dage dní gün dia dias "
    "日間 일 day days tag tage tagen jour jours día días giorno giorni dag dagen 天 päivä päivää "
    "päivän nap napon napot napja deň dňa dan dana dani дан дана दिन",
    ("second", 604800): "أسبوع أسبوعا أسابيع hafta* tydzień tygodnie tygodni неделя недели "
    "недель veckor uger týdnů hafta 周 週間 주 week weeks woche wochen semaine semaines semana "
    "semanas settimana settimane weken viikko viikkoa viikon viikkoa hét hetes hetet týždeň "
    "týždne týždňov týdny týden týdne недеље недеља недељу nedelje nedelja tjedan tjedna सप्ताह",
    ("month", 1): "شهر شهرا أشهر شهور ay mês месяц месяца месяцев miesiąc miesiące miesięcy "
    "månader månad měsíců měsíce 개월 か月 ヶ月 month months monat monate monaten mois mes meses "
    "mese mesi maand maanden 个月 kuukausi kuukautta kuukauden hónap hónapos hónapot mesiac "
    "mesiace mesiacov mesiaca месеца месеци mjesec mjeseca mjeseci mesec meseca meseci महीने "
    "महीना माह",
    ("month", 12): "سنة سنوات عام عاما أعوام yıldır yıla год года лет rok lata lat år roků let "
    "yıl yıllık* ano anos 年 年間 년 year years yr yrs jahr jahre jahren année années ans año años "
    "anno anni jaar vuosi vuotta vuoden év éves évig évet roky rokov godina godine годинa године "
    "година साल वर्ष",
    ("times", 1): "times mal fois vez veces volte keer maal vezes raz razy раз раза gånger "
    "ganger x × gange kez kere مرات 次 回 번",
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
    ("watt", 1): "W Вт watt watts",
    ("watt", 1e3): "kW кВт kilowatt kilowatts",
    ("watt", 1e6): "MW megawatt megawatts",
    ("watt", 1e9): "GW gigawatt gigawatts",
    ("watt hour", 1e3): "kWh кВтч kilowattstunde* kilowattuur kilowattheures",
    ("watt hour", 1e6): "MWh megawattstunde* megawattuur mégawattheures",
    ("watt hour", 1e9): "GWh gigawattstunde* gigawattuur gigawattheures",
    ("watt hour", 1e12): "TWh terawattstunde* terawattuur térawattheures",
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


def _units_by_name() -> Mapping[str, tuple[Unit, ...]]:
    units: dict[str, tuple[Unit, ...]] = {}
    for (dimension, factor), names in _UNIT_NAMES.items():
        for name in names.split():
            units[name] = (*units.get(name, ()), Unit(dimension, factor))
    return units


_UNITS_BY_NAME = _units_by_name()
_FACTOR = r"[^\S\n]{0,2}[0-9(]"
_SIDE_AFTER = re.compile(rf"[^\S\n]{{0,2}}[x×]{_FACTOR}", re.IGNORECASE)
_SIDE_BEFORE = re.compile(r"[0-9][^\S\n]{0,2}[x×][^\S\n]{0,2}\Z", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"[^\S\n]?[-\u2010\u2011]?[^\S\n]{0,2}\n?[^\S\n]{0,2}"
    r"(?P<unit>%|٪|‰|°[^\S\n]?[CF]\b|°|(?:US|AU?|CA?|HK|S|NZ|R)?[$€£¥₹₩₽]|m[²³23]\b|km[²2]\b"
    r"|km/h\b|m/s\b|个月"
    r"|个?百分[点點]|パーセント|ポイント|ユーロ|ドル|トン|小时|分钟|人民币|[美欧]元|公[里斤]|千克"
    r"|毫克"
    r"|時間|分間|日間|週間|年間|か月|ヶ月|基点|퍼센트포인트|퍼센트|달러|유로|개월|시간|[원년일분주]"
    r"|(?<![0-9〇一二三四五六七八九零]{4})年(?=[^\w\s/\u2010-\u2015~〜～-]|\s*\Z|\n|続|と[しす]|で[すあ、]|的)"
    r"|[元圆圓円天米克升吨周秒次回번]|割(?![れりけっ])|成(?![立为為员員功本果交分绩績年长長])|分(?![之の引野析别店])|％|[₺₴₪฿￥]|п\.п\b|[دجر]\.[\u0621-\u064a]\b"
    rf"|×(?!{_FACTOR})|(?!x{_FACTOR})[^\W\d_\u3040-\u9fff\uac00-\ud7af]+(?:[\u0900-\u0dff]+\w*)*)"
)
_NUMBERED_YEAR = re.compile(
    r"(?:令和|平成|昭和|大正|明治|慶[応應]|民[国國]|公元|西[暦历曆]|康熙|雍正|乾隆|嘉[庆慶]|道光|咸[丰豐]|同治|光[绪緒]|宣[统統]"
    r"|第|[学學高校]|年[~〜～至到から\u2010-\u2015-]{1,2})\s?(?:[0-9]+|[元〇零一二三四五六七八九十百]+)\s?\Z"
    r"|(?<![0-9])0[0-9]+\s?\Z"
)
"""Before a 年 that says which year it is, and not how many they are."""
_UN_BEFORE = re.compile(r"(?<![^\W_])un\Z", re.IGNORECASE)
"""Before `an`, which is an article in English."""
_PER_CENT = re.compile(
    r"\s{0,2}(?:per|pour|por)[^\S\n]?(?:cent|cento|ciento)\b|\s?phần trăm"
    r"|\s?(?:في المئة|بالمئة|بالمائة|في المائة)|\s?τοις εκατό",
    re.IGNORECASE,
)
_POINTS = re.compile(
    r"[\s-]{0,2}(?:(?P<basis>basis[- ]?points?|basis[- ]?punkten?|points? de base|puntos? básicos?"
    r"|punti base|pontos?[- ]base|punkt\w* bazow\w*|базисн\w* пункт\w*|baz puan|räntepunkt\w*)"
    r"|(?:percentage|per[- ]?cent|%)[- ]?points?|(?:prozent|%)[- ]?punkten?|points? de pourcentage"
    r"|puntos? porcentual\w*|punti percentuali|procentpunt\w*|pontos? percentua\w*|p\.\s?p\."
    r"|punkt\w* procentow\w*|процентн\w+ пункт\w*|відсотков\w+ пункт\w*|procentenhet\w*"
    r"|procentpoint|prosentpoeng|prosenttiyksik\w*|procentn\w+ bod\w*|(?:yüzde )?puan"
    r"|százalékpont\w*|نقط\w* مئوية|puncte procentuale|п\.\s?п\.?)(?!\w)",
    re.IGNORECASE,
)
_POINT, _BASIS_POINT = Unit("percentage point"), Unit("percentage point", 0.01)
_PER_HOUR = re.compile(
    r"[^\S\n]?(?:/|per|pro|par|por|all'|à l')[^\S\n]?(?:h|hour|stunde|heure|hora|ora|uur)\b",
    re.IGNORECASE,
)
_SQUARE_AFTER = re.compile(
    r"[^\S\n](?:quadr\w+|carrés?|cuadrados?|kwadratow\w+|квадратн\w+)", re.IGNORECASE
)
_UNIT_BEFORE = re.compile(
    r"(?:(?:US|AU?|CA?|HK|S|NZ|R)?\$|[€£¥₹₩₽₺₴₪฿￥]|(?<!\d)(?<!\d\s)%|(?<!\w)(?i:yüzde)"
    r"|(?<![^\W_])(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|Rs|SEK|NOK|DKK|PLN|CAD|AUD|BRL|MXN|KRW|RUB"
    r"|kr|Fr|TRY|TL|CZK|HUF|RON|ILS|THB|ZAR|AED|SAR|UAH|HKD|SGD|NZD)\.?)[^\S\n]?\Z"
)
CURRENCIES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "RMB", "INR", "SEK", "NOK", "DKK", "PLN", "CAD"),
    *("AUD", "BRL", "MXN", "KRW", "RUB", "TRY", "CZK", "HUF", "RON", "ILS", "THB", "ZAR", "AED"),
    *("SAR", "UAH", "HKD", "SGD", "NZD"),
)
"""Currency codes, which may be directly before a number."""
_CURRENCY_DIMENSIONS = frozenset(
    unit.dimension for code in CURRENCIES for unit in _UNITS_BY_NAME.get(code.casefold(), ())
)


_OTHER_DOLLARS = frozenset(("a$", "c$", "ca$", "au$", "hk$", "s$", "nz$"))


def currency_names(name: str) -> tuple[str, ...]:
    """Return how else a currency is written; empty for what is none.

    >>> currency_names("EUR")[:3]
    ('€', 'euro', 'euros')
    """
    name = name.casefold()
    others = {code.casefold() for code in CURRENCIES} | _OTHER_DOLLARS
    for (dimension, factor), written in _UNIT_NAMES.items():
        names = written.split()
        if name in names and factor == 1 and dimension in _CURRENCY_DIMENSIONS:
            is_code = name in others
            if dimension.endswith(" dollar") and dimension[:2] != "US":
                names = [one for one in names if one not in ("$", "dollar", "dollars")]
            return tuple(one for one in names if one != name and not (is_code and one in others))
    return ()


def factors_of(dimension: str) -> frozenset[float]:
    """Return the factors of all units of a dimension."""
    return frozenset(factor for name, factor in _UNIT_NAMES if name == dimension)


def is_money(unit: Unit) -> bool:
    return unit.dimension in _CURRENCY_DIMENSIONS


def is_unit(name: str) -> bool:
    """Return whether a word in lower case is a unit or a currency."""
    return name in _UNITS_BY_NAME


_COPULA = re.compile(r"[dt][ıiuü]r\Z")
"""`Is` in Turkish: 30 aydır."""


def units_named(name: str) -> tuple[Unit, ...]:
    """Return what a word or a sign may be as a unit."""
    name = name.replace("İ", "i")
    units = _UNITS_BY_NAME.get(name)
    if units is None and (len(name) > 1 or not name.isalpha() or name in "MLGT"):
        units = _UNITS_BY_NAME.get(name.casefold()) or _inflected(name.casefold())
        units = units or _UNITS_BY_NAME.get(_COPULA.sub("", name.casefold()))
    return units or ()


def units_after(text: str, at: int) -> tuple[tuple[Unit, ...], int]:
    """Return the possible units after a number, and where they end.

    >>> units_after("5 km away", 1)
    ((Unit(dimension='metre', factor=1000),), 4)
    """
    found = _POINTS.match(text, at)
    if found is not None:
        return (_BASIS_POINT if found["basis"] else _POINT,), found.end()
    found = _PER_CENT.match(text, at)
    if found is not None:
        return (PERCENT,), found.end()
    found = _UNIT_AFTER.match(text, at)
    if found is None:
        return (), at
    units = units_named(re.sub(r"\s", "", found["unit"]))
    if found["unit"] == "an" and _UN_BEFORE.search(text, max(0, at - 3), at):
        return (Unit("month", 12),), found.end()
    if found["unit"] == "年" and _NUMBERED_YEAR.search(text, max(0, at - 12), at):
        return (), at
    if not units:
        return (), at
    square = _SQUARE_AFTER.match(text, found.end())
    if square is not None and units[0].dimension == "metre":
        return (Unit("square metre", units[0].factor ** 2),), square.end()
    per_hour = _PER_HOUR.match(text, found.end())
    if per_hour is not None and units[0].dimension == "metre":
        return (Unit("speed", units[0].factor / 3600),), per_hour.end()
    return units, found.end()


def is_side(text: str, start: int, end: int) -> bool:
    """Return whether a number is a side or a factor: 2 x 4, 3 x 10^8."""
    before = _SIDE_BEFORE.search(text, max(0, start - 6), start)
    return before is not None or _SIDE_AFTER.match(text, end) is not None


def _inflected(name: str) -> tuple[Unit, ...]:
    """Return what a name with an ending is: `rublami`, `liraya`."""
    stems = (f"{name[:end]}*" for end in range(len(name), _LEAST_STEM_CHARS - 1, -1))
    return next((_UNITS_BY_NAME[stem] for stem in stems if stem in _UNITS_BY_NAME), ())


_LEAST_STEM_CHARS = 2


def units_before(text: str, at: int) -> tuple[Unit, ...]:
    """Return the possible currencies before a number."""
    found = _UNIT_BEFORE.search(text, max(0, at - 6), at)
    if found is None:
        return ()
    name = found[0].strip().rstrip(".").casefold()
    return _UNITS_BY_NAME.get("chf" if name == "fr" else name, ())
