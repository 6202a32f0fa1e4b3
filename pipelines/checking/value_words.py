"""Words that say what a number means: directions, fractions, multiples.

A direction belongs to its number: the nearest word of the same clause with no other number between.
Rose and fell are opposites, as are profit and loss, at least and at most. Fractions and multiples
are numbers: a quarter, zwei Drittel, doubled. Quarters of a year and of a town, half past nine and
the second half are none.

Each word of a text is tried once, wherever it occurs: a pattern of 300 words takes a fifth of the
time that `finditer` takes.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+")


def matches_at_words(
    pattern: re.Pattern[str], first_words: re.Pattern[str], text: str
) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern at words that begin as `first_words`, without overlaps."""
    hits = {word for word in set(_WORD.findall(text)) if first_words.match(word)}
    last = 0
    for word in _WORD.finditer(text) if hits else ():
        if word[0] in hits and word.start() >= last:
            found = pattern.match(text, word.start())
            if found is not None:
                last = found.end()
                yield found


def first_words(pattern: str) -> re.Pattern[str]:
    """Return a pattern of the first words of alternatives without nested ones.

    >>> bool(first_words("at least|over").match("at")), first_words("at least|over").match("least")
    (True, None)
    """
    return re.compile("|".join({_FIRST.split(one, maxsplit=1)[0] for one in alternatives(pattern)}))


_FIRST = re.compile(r"[\s]|\[\\s|-|\(\?: ")


def alternatives(pattern: str) -> Iterator[str]:
    """Yield the alternatives of a pattern outside its brackets."""
    depth = first = 0
    for at, sign in enumerate(pattern):
        depth += (sign in "([") - (sign in ")]")
        if sign == "|" and not depth:
            yield pattern[first:at]
            first = at + 1
    yield pattern[first:]


_DIRECTIONS: Mapping[str, str] = {
    "most": r"at most|no more than|not more than|up to|maximum|less than|fewer than|under|below"
    r"|within|not exceed\w*|max|höchstens|maximal|bis zu|weniger als|unter|nicht mehr als"
    r"|au plus|au maximum|moins de|maximum|inférieur\w*|como máximo|máximo|menos de|hasta"
    r"|inferior\w*|al massimo|massimo|meno di|fino a|hoogstens|ten hoogste|maximaal"
    r"|minder dan|no máximo|até|abaixo de|najwyżej|maksymalnie|mniej niż|poniżej|не более"
    r"|максимум|менее|меньше|до|не больше|не більше|högst|max(?:imalt)?|mindre än|under"
    r"|nejvýše|maximálně|en fazla|en çok|azami|最多|多くとも|多くても"
    r"|不超过|至多|不到|以下|低于|以内"
    r"|未満"
    r"|최대|이하|미만|على الأكثر|أقل من|לכל היותר|פחות מ\w*|अधिकतम|से कम",
    "least": r"at least|no less than|not less than|no fewer than|not fewer than|minimum|more than"
    r"|over|above|exceed\w*|mindestens|mehr als|über|minimal|nicht weniger als|au moins"
    r"|au minimum|plus de|minimum|supérieur\w*|al menos|por lo menos|como mínimo|mínimo"
    r"|más de|superior\w*|almeno|minimo|più di|oltre|minstens|ten minste|meer dan"
    r"|minimaal|pelo menos|no mínimo|mais de|acima de|co najmniej|przynajmniej|minimum"
    r"|więcej niż|ponad|не менее|минимум|более|больше|свыше|щонайменше|не менше|понад"
    r"|minst|mer än|över|nejméně|alespoň|více než|en az|asgari|至少|不少于|超过|以上|高于"
    r"|最低|少なくとも|최소|이상|초과|على الأقل|أكثر من|לפחות|יותר מ\w*|न्यूनतम|कम से कम"
    r"|से अधिक",
    "loss": r"los(?:s|ses|t|e|es|ing)|negative|deficit\w*|verlust\w*|negativ\w*|perte\w*|perdu\w*"
    r"|pérdida\w*|perdió|perdi\w*|perdit\w*|verlies|perda\w*|prejuízo\w*|strat\w*|убыт\w*"
    r"|потер\w*|збит\w*|förlust\w*|underskud|ztrát\w*|zarar\w*|pierder\w*|veszteség\w*"
    r"|tappio\w*|rugi|lỗ|خسار\w*|הפסד\w*|हानि|亏损|損失|赤字|손실|적자|ขาดทุน|ζημι\w*",
    "profit": r"gain\w*|profit\w*|surplus\w*|gewinn\w*|bénéfice\w*|gagn\w*|ganancia\w*|beneficio\w*"
    r"|utile|guadagn\w*|winst|lucro\w*|ganh\w*|zysk\w*|прибыл\w*|прибут\w*|vinst\w*"
    r"|overskud\w*|zisk\w*|k[âa]r|nyereség\w*|voitto\w*|laba|lãi|ربح|أرباح|רווח\w*|लाभ"
    r"|盈利|利润|黒字|利益|이익|흑자|กำไร|κέρδ\w*",
    "fall": r"sl[iu]de?s?|sliding|dips?|dipped|tumbl\w*|narrow\w*|eas(?:ed|es)|weaken\w*"
    r"|contract(?:ed|s)"
    r"|crashed|halbier\w*|schrumpf\w*|rutscht\w*|flaut\w*|recede\w*|krom[pm]\w*|f[ea]ll(?:en"
    r"|ing|s)?|dropp?\w*|decreas\w*|declin\w*|lower\w*|down|reduc\w*"
    r"|shr[aiu]nk\w*|cuts?|slipp?\w*|cheaper|discount\w*|slump\w*|plung\w*|gesunken|sank"
    r"|sink\w*|fiel\w*|gefallen|fällt|rückgang\w*|verringer\w*|gesenkt|senk\w*"
    r"|reduzier\w*|minder\w*|abgenommen|baiss\w*|recul\w*|chut\w*|diminu\w*|réduit\w*"
    r"|réduction\w*|négati\w*|baj[aoó]\w*|caíd\w*|cay\w*|cae[nr]?|desc[ei]\w*|redu[cj]\w*"
    r"|disminu\w*|cal[aoò]\w*|cadut\w*|ridott\w*|riduc\w*|riduzion\w*|scend\w*|sces[aoie]"
    r"|gedaald\w*|daling\w*|daald\w*|daalt|verlaagd|gezakt|ca[ií]\w*|caiu|ca[ií]ram"
    r"|queda\w*|recuou|diminuiu|reduziu|spad\w*|zmniejsz\w*|obniż\w*|zmala\w*|сни[зж]\w*"
    r"|упал\w*|падени\w*|уменьш\w*|сократи\w*|зни[зж]\w*|впа[вл]\w*|зменш\w*|minskad?\w*"
    r"|sjönk|sjunk\w*|fald\w*|faldt|gikk ned|falt|kles\w*|pokles\w*|sníži\w*|düş\w*"
    r"|azal\w*|geril\w*|scăd\w*|scade\w*|csökken\w*|laski|lasku\w*|väheni\w*|turun"
    r"|menurun|giảm|انخفض\w*|تراجع\w*|هبط\w*|ירד\w*|ירידה|गिर\w*|घट\w*|कमी|下降"
    r"|减少|引き下げ|引下げ|値下"
    r"|降低|下跌|跌|下調|減少|減|低下|下落|下调|调低|跌幅|감소|하락|줄\w*|ลดลง|ลด|μείωσ\w*|μειώθ\w*"
    r"|scăz\w*|billiger|verbillig\w*|omlaag|abarat\w*|barate\w*|подешев\w*|ucuzla\w*",
    "rise": r"teurer|verteuer\w*|omhoog|encarec\w*|подорож\w*|pahalı\w*|hauss\w*|relev[éè]\w*"
    r"|上调|调高|涨幅|crept up|edged up|rall(?:ied|ies)|widen\w*|strengthen\w*|expand\w*|advanced"
    r"|rebound\w*"
    r"|kletter\w*|legten?|bondi\w*|repunt\w*|rise[ns]?|rising|rose|grow\w*|grew|increas\w*"
    r"|higher|climb\w*|jump\w*|soar\w*"
    r"|surg\w*|up|rais\w*|dearer|stieg\w*|steig\w*|gestiegen|erhöh\w*|zunahm\w*"
    r"|zugenommen|wuchs\w*|gewachsen|zuwachs|anstieg|hausse|augment\w*|progress\w*"
    r"|croissance|accru\w*|grimp\w*|subi[óòd]\w*|sub[ei]\w*|aument\w*|crec\w*|alza"
    r"|cresc\w*|salit\w*|sal[eì]|rialz\w*|gestegen|steeg|stijg\w*|groei\w*|verhoogd|subiu"
    r"|subiram|cresceu|wzrost\w*|wzros\w*|wzrós\w*|zwiększ\w*|podni\w*|вырос\w*|рост\w*"
    r"|увелич\w*|повы[сш]\w*|возрос\w*|зріс|зрос\w*|збільш\w*|підвищ\w*|ökad?\w*"
    r"|öka[rtd]\w*|steg|stig\w*|høyere|øk\w*|vzrost\w*|stoupl\w*|zvýši\w*|art[ıt]\w*|artar\w*"
    r"|artar\w*|artm\w*|yüksel\w*|büyü\w*|creșt\w*|nőtt|növe\w*|emelk\w*"
    r"|nousi\w*|kasvo\w*|naik|meningkat"
    r"|tăng|ارتفع\w*|زاد\w*|زياد\w*|עלה|עלת\w*|עלייה|बढ़\w*|वृद्धि|上升|增长|增加|上涨"
    r"|提高|涨|增|増加|上昇|増|値上|引き上げ|引上げ|증가|상승|늘\w*|เพิ่มขึ้น|เพิ่ม|αυξ\w*|αύξη\w*",
}
_IS_UNSPACED = re.compile("[\u2e80-\uffff\u0900-\u0eff]")


def _pattern(*, is_spaced: bool) -> re.Pattern[str]:
    """Return a pattern of the words of scripts with spaces, or without."""
    kinds = []
    for kind, words in _DIRECTIONS.items():
        chosen = [w for w in alternatives(words) if bool(_IS_UNSPACED.match(w)) != is_spaced]
        kinds.append(f"(?P<{kind}>{'|'.join(chosen)})")
    return re.compile(f"(?:{'|'.join(kinds)})" + (r"(?!\w)" if is_spaced else ""))


@lru_cache(maxsize=1)
def _spaced_directions() -> re.Pattern[str]:
    return _pattern(is_spaced=True)


@lru_cache(maxsize=1)
def _unspaced_directions() -> re.Pattern[str]:
    return _pattern(is_spaced=False)


@lru_cache(maxsize=1)
def _first_of_directions() -> re.Pattern[str]:
    return first_words("|".join(_DIRECTIONS.values()))


_PERIODS: Mapping[str, str] = {
    "hour": r"hourly|st[üu]ndlich\w*|horaires?|orari[oa]|uurloon|stundenlohn\w*|godzinow\w+"
    r"|saatlik|时薪|時給|每小时|毎時|시급",
    "day": r"daily|täglich\w*|tages(?:satz|miete|preis|dosis|gebühr)\w*|quotidien\w*"
    r"|journali\w+|diari[oa]s?|giornalier\w+|dagelijks\w*|diári[oa]s?|dzienn\w+|codziennie"
    r"|ежедневн\w*|суточн\w+|günlük|günde|يومي\w*|日額|日給|每日|每天|毎日|일당",
    "week": r"weekly|wöchentlich\w*|hebdomadaires?|semanal(?:es|mente)?|semanais"
    r"|settimanal\w+|wekelijks\w*|tygodniow\w+|еженедельн\w*|недельн\w+|haftalık|haftada"
    r"|أسبوعي\w*|週額|週給|每周|每週|毎週|주급",
    "month": r"monthly|monatlich\w*|monats(?:beitr\w+|gebühr|mieten?|gehalt|rate|prämie|preis"
    r"|abschlag|lohn|einkommen)|mensuel\w*|mensual(?:es|mente)?|mensil\w+|mensal(?:mente)?"
    r"|mensais|maandelijks\w*|maand(?:bedrag|huur|salaris|premie|loon)|miesięczn\w+"
    r"|ежемесячн\w*|месячн\w+|aylık|ayda|شهريا|شهرياً|شهريًا|شهري|شهرية|الشهري|الشهرية"
    r"|月額|月給|月租|月薪|每月|每个月|毎月|월세|월급|매월",
    "year": r"yearly|annual(?:ly)?|jährlich\w*|jahres(?:beitr\w+|gebühr|miete|gehalt|rate|prämie"
    r"|preis|lohn|einkommen)|annuel\w*|anual(?:es|mente)?|annu[ao]l?[ei]?|annualmente|anuais"
    r"|jaarlijks\w*|jaar(?:bedrag|huur|salaris|premie|loon|contributie)|roczn[aeiy]\w*|rocznie"
    r"|ежегодн\w*|годов\w+|yıllık|yılda|senelik|سنويا|سنوياً|سنويًا|سنوي|سنوية|السنوي|السنوية"
    r"|年額|年給|年薪|年费|每年|毎年|年会費|연봉|매년",
}
_PERIOD_NAMES: Mapping[str, str] = {
    "second": r"second|sekunde|seconde|segundo|secondo|sekundę|секунду|saniyede|الثانية|ثانية",
    "minute": r"minute|minuto|minuut|minutę|минуту|الدقيقة|دقيقة",
    "hour": r"hour|hr|h|stunde|std|heure|hora|ora|uur|godzinę|час|saat|الساعة|ساعة",
    "day": r"day|tag|jour|día|dia|giorno|dag|dzień|день|сутки|اليوم|يوم",
    "week": r"week|woche|semaine|semana|settimana|tydzień|неделю|الأسبوع|أسبوع",
    "month": r"month|monat|mois|mes|mese|maand|mês|miesiąc|месяц|الشهر|شهر",
    "year": r"year|annum|jahr|an|année|año|anno|jaar|ano|rok|год|السنة|سنة|العام|عام",
}
_PER_WORD = "per|an?|each|every|pro|im|je|in|par|à|al|por|cada|all|alla|ao|na|в|за|كل|في"
_PER = rf"(?:{_PER_WORD})(?:\s(?:der|la|l(?=['\u2019])))?[\s'\u2019]"
_HAN = re.compile("[\u2e80-\uffff]")


@lru_cache(maxsize=2)
def _periods(*, is_spaced: bool) -> re.Pattern[str]:
    """Return a pattern of the periods in scripts with spaces, or without."""
    kinds = []
    for name, names in _PERIOD_NAMES.items():
        words = [one for one in _PERIODS.get(name, "").split("|") if one]
        words = [one for one in words if bool(_HAN.match(one)) != is_spaced]
        words += [f"{_PER}(?:{names})"] if is_spaced else []
        kinds += [f"(?P<{name}>{'|'.join(words)})"] if words else []
    return re.compile(f"(?:{'|'.join(kinds)})" + (r"(?!\w)" if is_spaced else ""))


@lru_cache(maxsize=1)
def _first_of_periods() -> re.Pattern[str]:
    words = "|".join(_PERIODS.values()).replace("(?:", "(").split("|")
    firsts = {re.split(r"[(\[\\?]", one)[0][:4] for one in words}
    return re.compile("|".join(one for one in firsts if len(one) > 2) + rf"|(?:{_PER_WORD})\Z")


_SENTENCE_CHARS, _NEXT_CHARS = 90, 16
_ABBREVIATED = ("руб.", "грн.", "тыс.", "mio.", "mrd.", "std.")
_NOT_NEXT = re.compile(r"\d|[.;:\n](?!\d)|,\s")


_EARLY = (
    r"in the morning|morgens|vormittags|früh|du matin|de la mañana|de la madrugada"
    r"|d(?:el|i) mattin[ao]|della mattina|da manhã|da madrugada|['\u2019]s ochtends|ochtends"
    r"|in de ochtend|rano|nad ranem|przed południem|утра|утром|sabah|صباحا|صباحاً|صباحًا|ص"
    r"|午前|上午|早上|凌晨|清晨|오전|새벽|πμ|på morgonen|ráno"
)
_LATE = (
    r"in the (?:afternoon|evening)|nachmittags|abends|de l['\u2019]après-midi|du soir"
    r"|de la tarde|de la noche|d(?:el|i) pomeriggio|di sera|della sera|da tarde|da noite"
    r"|['\u2019]s (?:middags|avonds)|avonds|in de (?:middag|avond)|po południu|wieczorem"
    r"|дня|вечера|вечером|öğleden sonra|akşam|مساء|مساءً|بعد الظهر|عصرا|م"
    r"|午後|下午|晚上|傍晚|오후|저녁|μμ|på (?:eftermiddagen|kvällen)|odpoledne|večer"
)
_HOURS = r"(?:\s?(?:uhr|uur|h|hs|heures?|horas?|час\w*|o['\u2019]clock))?"
_PART_AFTER = re.compile(rf"{_HOURS}[\s,]{{0,2}}(?:(?P<early>{_EARLY})|(?P<late>{_LATE}))(?!\w)")
_PART_BEFORE = re.compile(
    rf"(?:(?P<early>{_EARLY})|(?P<late>{_LATE}))\s?(?:(?:um|at|om|saat|a las|alle|в|o|الساعة)\s)?\Z"
)
_PART_CHARS = 24


def part_of_day(text: str, start: int, end: int) -> str:
    """Return which half of the day is named next to a time in a lower-case text, if any.

    >>> part_of_day("at 8 in the evening", 3, 4), part_of_day("午後3時", 2, 4)
    ('late', 'late')
    """
    found = _PART_AFTER.match(text, end)
    found = found or _PART_BEFORE.search(text, max(0, start - _PART_CHARS), start)
    return str(found.lastgroup) if found is not None else ""


_ARABIC_AND = re.compile(r"(?<!\w)[وف](?=\w{4})")
_COMPARED_AFTER = re.compile(
    r"[^\S\n]?(?:(?P<more>more|higher|mehr|höher|de plus|más|superior|più|superiore|mais|meer"
    r"|hoger|więcej|wyż\w+|больше|выше|fazla|أكثر|多|高)"
    r"|(?P<less>less|fewer|lower|weniger|niedriger|de moins|menos|inferior|meno|inferiore|minder"
    r"|lager|mniej|niż\w+|меньше|ниже|eksik|أقل|少|低))(?!\w*[a-z])"
)
"""`6 % more`, which is a change; `more than 6 %` is a bound."""
_CLAUSE = re.compile(
    r"[.!?;:\n,()、，。；：](?!\d)|\s(?:and|und|et|y|e|en|och|og|i|и|а|but|aber|mais|pero|ma|maar"
    r"|ve|while|whereas|während)\s"
)
_STOP = re.compile(r"[.!?;\n。；](?!\d)")
_LEVEL = re.compile(
    r"(?<![^\W_])(?:to|at|from|auf|bei|à|a|al|desde|hasta|naar|tot|op|para|em"
    r"|do|na|z|إلى|الى|до|til|till|från"
    r"|fra|på|la|від|od|ze|su|da)[^\S\n](?:[$€£¥₹]|[a-z]{2,3}\$?[^\S\n])?\Z"
)
_LEVEL_CHARS = 12
_BEFORE_CHARS, _AFTER_CHARS = 60, 40


@dataclass(frozen=True, slots=True)
class Direction:
    """What the words around a number say; 0: nothing."""

    change: int = 0
    """-1 fell or lost, 1 rose or won."""
    bound: int = 0
    """-1 at most, 1 at least."""
    result: int = 0
    """-1 loss, 1 profit."""

    periods: frozenset[str] = frozenset()
    """Per what it is: `month`, `year`."""
    is_level: bool = False
    """It is where something rose or fell to, not by how much."""

    @property
    def is_less(self) -> bool:
        """Whether a number so described may be negative."""
        return self.change < 0 or self.result < 0

    def differs_from(self, other: Direction) -> bool:
        """Return whether a text with these words is not supported by one with the others.

        What rose or fell by so much must have done so there: verbs that are not known decide
        nothing.
        """
        if self.periods and other.periods and self.periods.isdisjoint(other.periods):
            return True
        if self.change and not self.is_level and not (other.change or other.result):
            return True
        pairs = zip(
            (self.change, self.bound, self.result),
            (other.change, other.bound, other.result),
            strict=True,
        )
        if any(one * two < 0 for one, two in pairs):
            return True
        moved, won = (self, other) if self.change else (other, self)
        return not moved.result and not won.change and moved.change * won.result < 0


NO_DIRECTION = Direction()


class DirectionWords:
    """The words of a text that have a direction."""

    def __init__(self, text: str) -> None:
        """Find them; `text` is in lower case."""
        text = _ARABIC_AND.sub(" ", text)
        self._text = text
        found = [*matches_at_words(_spaced_directions(), _first_of_directions(), text)]
        if not text.isascii():
            found += _unspaced_directions().finditer(text)
        self._words = sorted((one.start(), one.end(), str(one.lastgroup)) for one in found)
        self._starts = [start for start, _, _ in self._words]
        periods = [*matches_at_words(_periods(is_spaced=True), _first_of_periods(), text)]
        if not text.isascii():
            periods += _periods(is_spaced=False).finditer(text)
        self._periods = sorted((*one.span(), str(one.lastgroup)) for one in periods)

    def of(self, start: int, end: int) -> Direction:
        """Return the direction of the number between two offsets."""
        first = bisect_left(self._starts, start - _BEFORE_CHARS)
        periods = self._periods_of(start, end) if self._periods else frozenset()
        if first == bisect_left(self._starts, end + _AFTER_CHARS):  # no word of direction is near
            return Direction(periods=periods) if periods else NO_DIRECTION
        compared = _COMPARED_AFTER.match(self._text, end)
        change = self._nearest(start, end, "fall", "rise")
        if compared is not None:
            change = change or (1 if compared["more"] else -1)
        return Direction(
            change,
            self._nearest(start, end, "most", "least"),
            self._nearest(start, end, "loss", "profit"),
            periods,
            _LEVEL.search(self._text, max(0, start - _LEVEL_CHARS), start) is not None,
        )

    def _periods_of(self, start: int, end: int) -> frozenset[str]:
        """Return the period directly after a number, else those of its sentence."""
        end += self._text[end - 3 : end + 1] in _ABBREVIATED
        first = bisect_left(self._periods, (start - _SENTENCE_CHARS,))
        last = bisect_left(self._periods, (end + _SENTENCE_CHARS,))
        near = self._periods[first:last]
        for at, _, period in near:
            if end <= at <= end + _NEXT_CHARS and not _NOT_NEXT.search(self._text, end, at):
                return frozenset((period,))
        spans = ((min(end, stop), max(start, at), period) for at, stop, period in near)
        return frozenset(
            period for one, two, period in spans if not _STOP.search(self._text, one, two)
        )

    def _nearest(self, start: int, end: int, less: str, more: str) -> int:
        signs = {less: -1, more: 1}
        first = bisect_left(self._starts, start - _BEFORE_CHARS)
        before = [
            (self._text[one[1] : start], signs[one[2]])
            for one in self._words[first : bisect_left(self._starts, start)]
            if one[2] in signs and one[1] <= start
        ][::-1]
        after = [
            (self._text[end : one[0]], signs[one[2]])
            for one in self._near_after(end)
            if one[2] in signs
        ]
        for pattern, places in ((_CLAUSE, before), (_CLAUSE, after), (_STOP, before)):
            for between, sign in places[:1]:
                if not pattern.search(between) and not any(map(str.isdecimal, between)):
                    return sign
        return 0

    def _near_after(self, end: int) -> Sequence[tuple[int, int, str]]:
        first = bisect_left(self._starts, end)
        last = bisect_left(self._starts, end + _AFTER_CHARS)
        return self._words[first:last]


_ONES = (
    "a|an|one|ein|eine|einen|einem|einer|un|une|una|uno|één|een|um|uma|jedn[aąe]j?|одн[ауо]й?"
    "|en|et|ett"
    "|jedna|jedné|jednu"
)
_COUNTS: Mapping[str, str] = {
    "1": _ONES,
    "2": "two|zwei|deux|dos|due|twee|dois|duas|dwie|dwa|две|två|to|dvě",
    "3": "three|drei|trois|tres|tre|drie|três|trzy|три|tre|tři",
    "4": "four|vier|quatre|cuatro|quattro|quatro|cztery|четыре|fyra|fire|čtyři",
    "5": "five|fünf|cinq|cinco|cinque|vijf|pięć|пять|fem|pět",
}
_PARTS: Mapping[int, str] = {
    2: r"half|halves|halved|halving|hälfte|halbier\w*|moitié|mitad|metà|metade|helft"
        r"|gehalveerd|połow[aęyą]"
    r"|половин[аыуе]|вдвое меньше|hälften|halverad\w*|halvdelen|halveret|polovin[auy]"
    r"|půlk[auy]|yarısı\w*|yarıya|puolet"
    r"|fele|felét|jumătate\w*|setengah|separuh|половин[аиу]|نصف|आध[ाेी]|חצי|מחצית|ครึ่งหนึ่ง"
    r"|một nửa",
    3: r"thirds?|drittel\w*|tiers|tercios?|terz[oi]|derden?|terços?|trzeci\w* częś\w*|trzecie"
        r"|третья|третью|трети|треть"
    r"|tredjedel\w*|třetin[auy]|kolmannes\w*|kolmasosa\w*|harmad\w*|treime|sepertiga"
    r"|третин[аиу]|ثلث|ثلثي|ثلثا|तिहाई|שליש",
    4: r"quarters?|viertel\w*|quarts?|cuartos?|quart[oi]|kwart|vierden?|ćwierć|czwart\w* "
        r"częś\w*|czwarte|czwarta|четверт[ьи]"
    r"|fjärdedel\w*|kvart|fjerdedel\w*|čtvrtin[auy]|neljännes\w*|neljäsosa\w*|negyed\w*|sfert"
    r"|seperempat|чверт[ьі]|çeyre\w*|ربع|चौथाई|רבע",
    5: r"fifths?|fünftel\w*|cinquièmes?|quintos?|quint[oi]|vijfde|piąt\w+ częś\w*|пят(?:ая|ую"
        r"|ых)|femtedel\w*|pětin[auy]|viides\w*osa\w*|خمس",
    6: r"sixths?|sechstel\w*|sixièmes?|zesde|sjättedel\w*|šestin[auy]",
    8: r"eighths?|achtel\w*|huitièmes?|octavos?|ottav[oi]|achtste|osmin[auy]",
    10: r"tenths?|zehntel\w*|dixièmes?|décimos?|decim[oi]|tiende|tiondel\w*|tiendedel\w*"
        r"|desetin[auy]|kymmenes\w*",
}  # fmt: skip


@lru_cache(maxsize=1)
def _first_of_fractions() -> re.Pattern[str]:
    return first_words("|".join((*_COUNTS.values(), *_PARTS.values())))


_ALONE = frozenset((2,))
"""Parts that need no number before them."""
_TELLING_PART = re.compile(
    r"drittel|viertel|fünftel|sechstel|achtel|zehntel|tiers|terços?|tredjedel|fjärdedel"
    r"|fjerdedel|třetin|čtvrtin"
    r"|femtedel|sepertiga|seperempat|kolmannes|neljännes|treime|четверт|трет[иь]|ثلث|ربع"
    r"|तिहाई|चौथाई|שליש|çeyre"
)


@lru_cache(maxsize=1)
def _fractions() -> re.Pattern[str]:
    return re.compile(
        r"(?:(?:"
        + "|".join(rf"(?P<c{n}>{words})" for n, words in _COUNTS.items())
        + r")[\s-]+)?(?:(?:"
        + "|".join(rf"(?P<p{n}>{words})" for n, words in _PARTS.items())
        + r"))(?!\w)"
    )


_ONE_WORD = re.compile(
    r"(?<!\w)(?:(drei|drie)(?:viertel|kwart)|halb(?:e[nrms]?)?|demi[e]?|mezz[oa]|medi[oa]"
    r"|mei[oa])(?!\w)"
)
_CJK = re.compile(
    r"(?<![0-9一二三四五六七八九十])([0-9一二三四五六七八九十]{1,3})\s?(?:分之|分の|분의)"
    r"\s?([0-9一二三四五六七八九十]{1,3})"
)
_TURKISH = re.compile(
    r"(?<!\w)(üçte|dörtte|beşte|onda|ikide)[\s]+(bir|iki|üç|dört)(?:[iuıüs]\w*)?(?!\w)"
)
_TURKISH_SHARE = re.compile("üçte|dörtte|beşte|onda|ikide")
_TURKISH_NUMBERS = {
    "ikide": 2,
    "üçte": 3,
    "dörtte": 4,
    "beşte": 5,
    "onda": 10,
    "bir": 1,
    "iki": 2,
    "üç": 3,
    "dört": 4,
}
_IN = re.compile(
    r"(?<!\w)(one|two|three|four|nine) (?:in|out of) (?:every )?(three|four|five|six|eight"
    r"|ten)(?!\w)"
    r"(?! (?:year|day|month|minute|hour|week)s?)"
)
_ENGLISH = dict(
    zip(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        range(1, 11),
        strict=True,
    )
)
_NOT_BEFORE = re.compile(
    r"(?:first|second|1st|2nd|third|fourth|last|next|this|per|each|every|previous|prior"
    r"|erste[nrs]?|zweite[nrs]?|dritte[nrs]?"
    r"|vierte[nrs]?|letzte[nrs]?|premi[eè]re?|deuxième|seconde|troisième|quatrième"
    r"|primer[oa]?|segund[oa]|prim[oa]|second[oa]"
    r"|tweede|fiscal|(?<!\w)q\d|pro|par)[\s-]+\Z"
)
_NOT_AFTER = re.compile(
    r"(?:[\s-]*(?:past|to (?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|\d)|after|before|vor|nach|over|voor"
    r"|år|mile|final\w*|time|ly|earnings|results|place|floor|part(?:y|ies)|quarter|week|day"
    r"|year|van het jaar)(?!\w)|-(?!\w*$)\w+|\s*(?:19|20)\d\d)"
)
_MULTIPLES: Mapping[float, str] = {
    2: r"twice|two-?fold|doubl(?:ed|es|ing)|double|zweimal|doppelt\w*|verdoppel\w*"
        r"|zweifach\w*|deux fois|doubl[eé]\w*|dos veces"
    r"|doble|duplic\w*|due volte|doppio|raddoppi\w*|tweemaal|twee keer|verdubbel\w*|duas "
    r"vezes|dobro|dobr(?:ou|aram)|dwukrotn\w*"
    r"|dwa razy|podwoi\w*|вдвое|дважды|удво\w*|fördubbl\w*|dubbelt|två gånger|fordobl\w*"
    r"|dobbelt|dvojnásob\w*|zdvojnásob\w*|iki kat\w*"
    r"|kaksinkertai\w*|kétszeres\w*|dublu|dublat|удвічі|вдвічі|ضعف\w*|दोगुन\w*|כפול|הוכפל\w*",
    3: r"thrice|three-?fold|tripl(?:ed|es|ing)|triple|dreimal|dreifach\w*|verdreifach\w*"
        r"|trois fois|tripl\w*|tres veces|triplic\w*"
    r"|tre volte|driemaal|drie keer|verdrievoudig\w*|três vezes|trzykrotn\w*|trzy razy"
    r"|potroi\w*|втрое|трижды|утро\w*|tredubbl\w*"
    r"|tre gånger|tredobl\w*|trojnásob\w*|ztrojnásob\w*|üç kat\w*|तिगुन\w*|втричі|kolminkertai\w*",
    4: r"quadrupl\w*|four-?fold|vervierfach\w*|vierfach\w*|quadrupl\w*|cuadruplic\w*"
        r"|quadruplic\w*|verviervoudig\w*|czterokrotn\w*"
    r"|вчетверо|fyrdubbl\w*|firedobl\w*|dört kat\w*",
    10: r"ten-?fold|zehnfach\w*|verzehnfach\w*|decuplic\w*|tienvoud\w*|dziesięciokrotn\w*"
        r"|десятикратн\w*|tiodubbl\w*",
}  # fmt: skip


@lru_cache(maxsize=1)
def _multiples() -> re.Pattern[str]:
    return re.compile(
        "(?:" + "|".join(rf"(?P<m{n}>{words})" for n, words in _MULTIPLES.items()) + r")(?!\w)"
    )


@lru_cache(maxsize=1)
def _first_of_multiples() -> re.Pattern[str]:
    return first_words("|".join(_MULTIPLES.values()))


@lru_cache(maxsize=1)
def _first_of_parts() -> re.Pattern[str]:
    return first_words("|".join(_PARTS.values()))


def is_share_word(word: str) -> bool:
    """Return whether a word in lower case may be a part of a fraction or a multiple."""
    patterns = (_first_of_parts(), _first_of_multiples(), _ONE_WORD, _TURKISH_SHARE)
    return any(pattern.match(word) for pattern in patterns)


_UNSPACED_SHARES = re.compile(
    "(?P<p2>一半|半数|半分|절반)|(?P<m2>两倍|翻倍|翻了一番|翻番|二倍|倍増|두 배)"
    "|(?P<m3>三倍|세 배)|(?P<m4>四倍)|(?P<m10>十倍)"
)
_NOT_MULTIPLE = re.compile(
    r"[\s-](?:room|bed|check|click|tax\w*|entry|digit|glaz\w*|spac\w*|zimmer|chambre|standard"
    r"|whammy|jeopardy|agent)\w*"
)
_AROUND = 16


def shares_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    """Yield offsets and value of each fraction and multiple in a lower-case text, and if it is one.

    What is a multiple has a value from 2 on; of fractions the last item is whether they are sure.

    >>> list(shares_in("two thirds of it, doubled; half past nine"))
    [(0, 10, 0.6666666666666666, True), (18, 25, 2.0, True)]
    """
    yield from _fractions_in(text)
    for found in _ONE_WORD.finditer(text):
        yield *found.span(), 0.75 if found[1] else 0.5, bool(found[1])
    yield from unspaced_shares_in(text)
    for found in _TURKISH.finditer(text):
        yield *found.span(), _TURKISH_NUMBERS[found[2]] / _TURKISH_NUMBERS[found[1]], True
    for found in _IN.finditer(text):
        yield *found.span(), _ENGLISH[found[1]] / _ENGLISH[found[2]], True
    for found in matches_at_words(_multiples(), _first_of_multiples(), text):
        if not _NOT_MULTIPLE.match(text, found.end()):
            yield *found.span(), float(str(found.lastgroup)[1:]), True


def unspaced_shares_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    """Yield the fractions and multiples of scripts without spaces."""
    for found in _CJK.finditer(text):
        below, above = _cjk(found[1]), _cjk(found[2])
        if below and below != 100:
            yield *found.span(), above / below, True
    for found in _UNSPACED_SHARES.finditer(text) if not text.isascii() else ():
        kind = str(found.lastgroup)
        yield *found.span(), 0.5 if kind == "p2" else float(kind[1:]), True


def _fractions_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    for found in matches_at_words(_fractions(), _first_of_fractions(), text):
        kinds = {name[0]: int(name[1:]) for name, part in found.groupdict().items() if part}
        below, above = kinds["p"], kinds.get("c", 0)
        is_alone = not above
        if is_alone and below not in _ALONE and not _TELLING_PART.match(text, found.start()):
            continue
        if _NOT_BEFORE.search(text, max(0, found.start() - _AROUND), found.start()):
            continue
        if _NOT_AFTER.match(text, found.end()):
            continue
        is_plain = text[found.end() - 1] != "s" and above > 1 and found[0].isascii()
        if is_plain and found[0].rsplit(maxsplit=1)[-1] in ("third", "fifth", "sixth", "eighth"):
            continue  # `two third places`
        is_part = below in _ALONE or above > 1 or not _is_party(text, found.end())
        yield *found.span(), (above or 1) / below, is_part


def _is_party(text: str, at: int) -> bool:
    return (
        re.match(r"\s+(?:part|person|time|countr|option|floor|day|year|person)", text[at : at + 12])
        is not None
    )


def _cjk(text: str) -> int:
    if text.isdecimal():
        return int(text)
    digits = "〇一二三四五六七八九十"
    value = 0
    for sign in text:
        value = (value or 1) * 10 if sign == "十" else value + digits.index(sign)
    return value
