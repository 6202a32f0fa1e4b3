"""Words that say what a number means: directions, fractions, multiples.

A direction belongs to its number: the nearest word of the same clause with no other number between.
Rose and fell are opposites, as are profit and loss, at least and at most, and next to a day or a
time before and after. Fractions and multiples are numbers: a quarter, zwei Drittel, doubled.
Quarters of a year and of a town, half past nine and the second half are none.

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
    words = _WORD.findall(text)
    hits = {word for word in {*words} if first_words.match(word)}
    last = at = 0
    for word in words if hits else ():
        start = text.find(word, at)
        at = start + len(word)
        if word in hits and start >= last:
            found = pattern.match(text, start)
            if found is not None:
                last = found.end()
                yield found


def first_words(pattern: str) -> re.Pattern[str]:
    """Return a pattern of the first words of alternatives without nested ones.

    >>> bool(first_words("at least|over").match("at")), first_words("at least|over").match("least")
    (True, None)
    """
    return re.compile("|".join({_FIRST.split(one, maxsplit=1)[0] for one in alternatives(pattern)}))


_FIRST = re.compile(r"[\s]|\[\\s|-|\(\?: |\(\?=")


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
    "most": r"at most|up to|maximum|less than|fewer than|under|below|or (?:less|fewer|lower|under)"
    r"|(?:lower|smaller|shorter) than|within|max|höchstens|maximal|bis zu|weniger als|unter"
    r"|unterhalb|(?:kürzer|kleiner|niedriger|geringer) als|binnen|innerhalb|au plus"
    r"|au maximum|moins de|maximum|inférieur\w*|en dessous|como máximo|máximo|menos de|hasta"
    r"|inferior\w*|a lo sumo|debajo de|al massimo|massimo|meno di|fino a|al di sotto"
    r"|hoogstens|ten hoogste|hooguit|maximaal|minder dan|onder|beneden|(?:lager|korter|kleiner) dan"
    r"|no máximo|até|abaixo de|quando muito|najwyżej|maksymalnie|mniej niż|poniżej|do najwyżej"
    r"|(?:niższ\w+|krótsz\w+|mniejsz\w+|krócej|niżej) niż|максимум|менее|меньше|до|ниже|högst"
    r"|max(?:imalt)?|mindre än|under|nejvýše|maximálně|en fazla|en çok|azami|altında"
    r"|\w*(?:d[ae]n|t[ae]n) (?:fazla|çok|uzun|yüksek) olma[my]\w*"
    r"|\w*(?:d[ae]n|t[ae]n) (?:daha )?(?:az|düşük|küçük|kısa)|aşma[myz]\w*|geçme[myz]\w*"
    r"|最多|多くとも|多くても|至多|不到|以下|低于|低於|以内|以內|不足|上限|最高|最大"
    r"|未満|少于|少於|超えない|超えず|최대|이하|미만|이내"
    r"|على الأكثر|[أا]قل من|(?:كحد|بحد|الحد) [أا]قصى|الحد الأقصى|دون|تحت|[يت]قل عن"
    r"|לכל היותר|פחות מ\w*|अधिकतम|से कम",
    "least": r"at least|minimum|more than|over|above|exceed\w*|or (?:more|higher|over|longer)"
    r"|(?:higher|larger|greater|longer|older) than|upwards of|mindestens|mehr als|über|minimal"
    r"|oberhalb|(?:länger|größer|höher) als|wenigstens|übersteig\w*|überschr\w*|au moins"
    r"|au minimum|plus de|minimum|supérieur\w*|dépass\w*|au dessus|au-dessus"
    r"|al menos|por lo menos|como mínimo|mínimo|más de|superior\w*|encima de|cuando menos"
    r"|super[ae]\w{0,2}|almeno|minimo|più di|oltre|al di sopra|minstens|ten minste|tenminste"
    r"|meer dan|boven|(?:hoger|langer|groter) dan|op zijn minst|minimaal|pelo menos|no mínimo"
    r"|mais de|acima de|exced\w*|ultrapass\w*|co najmniej|przynajmniej|minimum|minimalnie|powyżej"
    r"|przekracz\w*|(?:wyższ\w+|dłuższ\w+|większ\w+|dłużej|wyżej) niż|więcej niż|ponad|минимум"
    r"|более|больше"
    r"|свыше|выше|щонайменше|понад|minst|mer än|över|nejméně|alespoň|více než|en az|asgari"
    r"|\w*(?:d[ae]n|t[ae]n) (?:daha )?(?:fazla|çok|yüksek|büyük|uzun)|üzerinde|üstünde|aşkın"
    r"|aşan|aşarsa|aşması|aşı[yl]\w*|至少|超过|超過|超え|以上|高于|高於|多于|逾|最少|下限"
    r"|最低|最小|少なくとも|최소|이상|초과"
    r"|على الأقل|[أا]كثر من|(?:كحد|بحد|الحد) [أا]دنى|الحد الأدنى|فوق|[يت]تجاوز|تجاوز|[يت]زيد عن"
    r"|[يت]زيد على|לפחות|יותר מ\w*|न्यूनतम|कम से कम|से अधिक",
    "loss": r"los(?:s|ses)|negative|deficit\w*|verlust\w*|negativ\w*|perte\w*"
    r"|pérdida\w*|perdit[ae]|verlies|perda\w*|prejuízo\w*|strat\w*|убыт\w*"
    r"|потер\w*|збит\w*|förlust\w*|underskud|ztrát\w*|zarar\w*|pierder\w*|veszteség\w*"
    r"|tappio\w*|rugi|lỗ|خسار\w*|הפסד\w*|हानि|亏损|損失|赤字|손실|적자|ขาดทุน|ζημι\w*",
    "profit": r"profit\w*|surplus\w*|gewinn\w*|bénéfice\w*|ganancia\w*|beneficio\w*"
    r"|utile|winst|lucro\w*|zysk\w*|прибыл\w*|прибут\w*|vinst\w*"
    r"|overskud\w*|zisk\w*|k[âa]r|nyereség\w*|voitto\w*|laba|lãi|ربح|أرباح|רווח\w*|लाभ"
    r"|盈利|利润|黒字|利益|이익|흑자|กำไร|κέρδ\w*",
    "lost": r"cuts?|cutting|los[et]s?|losing|verlor\w*|verlier\w*"
    r"|perd(?:u\w*|re|ent|ait|ió|ieron|ido|eu|eram)"
    r"|perso|persero|perdono|adelgaz\w*|dimagri\w*|emagre\w*|maigri\w*|afgevallen|stracił\w*"
    r"|schud[łn]\w*|потерял\w*|kaybe[td]\w*|zayıfla\w*|خسر\w*|فقد\w*|نقص\w*|减重|瘦|痩せ|減量"
    r"|提前|早(?=\d)",
    "won": r"raise[ds]?|raising|gain(?:s|ed|ing)?|gew(?:ann|onnen)\w*|gagn\w*|gan(?:ó|aron|ado)"
    r"|guadagn\w*|ganh\w*"
    r"|(?:a|ai|ont|avons|avait)\spris(?=\s\d[\d.,]*\s?(?:kg|kilos?|%|cm)\b)|grossir|engord\w*"
    r"|ha\spreso(?=\s\d[\d.,]*\s?(?:kg|chili|%|cm)\b)|ingrass\w*|aangekomen|przyty\w*|zyska\w*"
    r"|kazan[dm]\w*|كسب\w*|增重|胖|太っ|推迟|延迟|延后|晚(?=\d)",
    "fall": r"(?:umsatz|gewinn|preis|job)?minus(?=\svon)"
    r"|(?:ging|gingen|geht|gehen)(?=[^.;:]{0,60}\szurück)|nahm(?:en)?(?=[^.;:]{0,60}\sab\b)"
    r"|(?:nam|namen)(?=[^.;:]{0,60}\saf\b)|zak[kt]\w*|terugge\w*|lager|krimp\w*"
    r"|indir(?:di|il|im|er)\w*|indi|düşür\w*|eksil\w*|küçül\w*|[يت]?خفض\w*|[يت]نخفض\w*|[يت]تراجع\w*"
    r"|انكمش\w*|تقلص\w*|下回|割り込|下が|下げ|落ち|縮小|回落|缩减|缩小|走低|sl[iu]de?s?|sliding|dips?|dipped|tumbl\w*|narrow\w*|eas(?:ed|es)|weaken\w*"
    r"|contract(?:ed|s)"
    r"|crashed|halbier\w*|schrumpf\w*|rutscht\w*|flaut\w*|recede\w*|krom[pm]\w*|f[ea]ll(?:en"
    r"|ing|s)?|dropp?\w*|decreas\w*|declin\w*|lower\w*|down|reduc\w*"
    r"|shr[aiu]nk\w*|slipp?\w*|cheaper|discount\w*|slump\w*|plung\w*|gesunken|sank"
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
    "rise": r"(?:umsatz|gewinn|preis|job)?plus(?=\svon)|nahm(?:en)?(?=[^.;:]{0,60}\szu\b)"
    r"|(?:nam|namen)(?=[^.;:]{0,60}\stoe\b)|stegen|stijgt"
    r"|toege\w*|hoger|[يت]رتفع\w*|[يت]زداد|ازداد\w*|نما|نمو\w*|صعد\w*|[يت]?رفع\w*|上回|上が|上げ|伸び|拡大|扩大"
    r"|攀升|回升|走高|teurer|verteuer\w*|omhoog|encarec\w*|подорож\w*|pahalı\w*|hauss\w*|relev[éè]\w*"
    r"|上调|调高|涨幅|crept up|edged up|rall(?:ied|ies)|widen\w*|strengthen\w*|expand\w*|advanced"
    r"|rebound\w*"
    r"|kletter\w*|legten?|bondi\w*|repunt\w*|rise[ns]?|rising|rose|grow\w*|grew|increas\w*"
    r"|higher|climb\w*|jump\w*|soar\w*"
    r"|surg\w*|up|dearer|stieg\w*|steig\w*|gestiegen|erhöh\w*|zunahm\w*"
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
    r"|ежедневн\w*|суточн\w+|günlük|günde|يومي\w*|日額|日給|日租|日薪|日均|每日|每天|毎日|일당",
    "week": r"weekly|wöchentlich\w*|hebdomadaires?|semanal(?:es|mente)?|semanais"
    r"|settimanal\w+|wekelijks\w*|tygodniow\w+|еженедельн\w*|недельн\w+|haftalık|haftada"
    r"|أسبوعي\w*|週額|週給|每周|每週|毎週|주급",
    "month": r"monthly|monatlich\w*|monats(?:beitr\w+|gebühr|mieten?|gehalt|rate|prämie|preis"
    r"|abschlag|lohn|einkommen)|mensuel\w*|mensual(?:es|mente)?|mensil\w+|mensal(?:mente)?"
    r"|mensais|maandelijks\w*|maand(?:bedrag|huur|salaris|premie|loon)|miesięczn\w+"
    r"|ежемесячн\w*|месячн\w+|aylık|ayda|شهريا|شهرياً|شهريًا|شهري|شهرية|الشهري|الشهرية"
    r"|月額|月給|月租|月薪|月费|月供|月收入|月均|家賃月|每月|每个月|毎月|월세|월급|매월",
    "year": r"yearly|annual(?:ly)?|jährlich\w*|jahres(?:beitr\w+|gebühr|miete|gehalt|rate|prämie"
    r"|preis|lohn|einkommen)|annuel\w*|anual(?:es|mente)?|annu[ao]l?[ei]?|annualmente|anuais"
    r"|jaarlijks\w*|jaar(?:bedrag|huur|salaris|premie|loon|contributie)|roczn[aeiy]\w*|rocznie"
    r"|ежегодн\w*|годов\w+|yıllık|yılda|senelik|سنويا|سنوياً|سنويًا|سنوي|سنوية|السنوي|السنوية"
    r"|年額|年給|年薪|年费|年租|年收入|年均|年利率|年化|年俸|年収|每年|毎年|年会費|연봉|매년",
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
_PER = (
    rf"(?:{_PER_WORD})(?:\s(?:der|la|l(?=['\u2019])))?[\s'\u2019]"
    r"(?:calendar\s)?(?:[^\s\d.,;]{1,12}[²³]?\s(?:und|and|et|y|e|en|i|и|ve)\s(?:(?:per|pro|je|par|por|al|an?)\s)?)?"
)
"""`je m² und Monat` is per month as well."""
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


_SHORT_PERIODS = re.compile(r"(?<!\w)(?:(?P<year>p\.\s?a\.)|(?P<month>pcm)(?!\w))")
_SENTENCE_CHARS, _NEXT_CHARS = 90, 16
_ABBREVIATED = ("руб.", "грн.", "тыс.", "mio.", "mrd.", "std.")
_NOT_NEXT = re.compile(r"\d|[.;:\n](?!\d)|,\s")


_EARLY = (
    r"in the morning|morgens|vormittags|früh|du matin|de la mañana|de la madrugada"
    r"|d(?:el|i) mattin[ao]|della mattina|da manhã|da madrugada|['\u2019]s ochtends|ochtends"
    r"|in de ochtend|rano|nad ranem|przed południem|утра|утром|sabah|صباحا|صباحاً|صباحًا|ص"
    r"|午前|上午|早上|凌晨|清晨|今早|朝|오전|새벽|πμ|på morgonen|ráno|(?:ال)?(?:صباح"
    r"|فجر)[\u064b]?ا?[\u064b]?"
)
_LATE = (
    r"in the (?:afternoon|evening)|nachmittags|abends|de l['\u2019]après-midi|du soir"
    r"|de la tarde|de la noche|d(?:el|i) pomeriggio|di sera|della sera|da tarde|da noite"
    r"|['\u2019]s (?:middags|avonds)|avonds|in de (?:middag|avond)|po południu|wieczorem"
    r"|дня|вечера|вечером|öğleden sonra|akşam|مساء|مساءً|بعد الظهر|عصرا|م"
    r"|午後|下午|晚上|傍晚|今晚|夜|오후|저녁|μμ|på (?:eftermiddagen|kvällen)|odpoledne|večer"
    r"|(?:ال)?(?:مساء|عصر|ليل|ظهر)[\u064b]?ا?[\u064b]?|بعد الظهر|akşamı|öğleden sonra"
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


_BEFORE_TIME = (
    r"before|until|till|by|up to|no later than|at the latest on|prior to|vor|bis|spätestens|avant"
    r"|jusqu['\u2019]au?|jusqu['\u2019]à|au plus tard|d['\u2019]ici|antes|hasta|a más tardar|prima"
    r"|entro|fino|al più tardi|até|o mais tardar|voor|vóór|tot|tot en met|t/m|uiterlijk|przed|do"
    r"|najpóźniej|en geç|قبل|حتى|أقصاه|до|перед|не позднее|截至|截止|不晚于|不迟于|至|到|遅くとも"
)
_AFTER_TIME = (
    r"after|from|since|starting|beginning|as of|effective|no earlier than|nach|ab|seit|frühestens"
    r"|après|à partir|à compter|dès|depuis|au plus tôt|después|a partir|desde|dopo|a partire|dal"
    r"|dall['\u2019]|dalle|depois|após|na|vanaf|sinds|met ingang|op zijn vroegst|po|od|począwszy"
    r"|najwcześniej|en erken|بعد|من|منذ|ابتداء|اعتبارا|после|с|начиная|自|从|由|早くとも"
)
_TIME_LINK = (
    r"(?:the|on|dem|den|der|zum|am|le|la|el|il|o|a|au|du|de|del|al|dal|dnia|op|van|des|zu|um|las|les"
    r"|los|os|as|às|alle|de la|kl|klokken|godz\.?|godziną|saat|o|the end of|يوم|الساعة|تاريخ|في|من"
    r"|موعد|mon|tues?|wednes|thurs?|fri|satur|sun|[^\W\d_]{3,12}(?:day|tag|di|dag|feira)"
    r"|lunes|martes|miércoles|jueves|viernes|sábado|domingo|[^\W\d_]{3,9}dì|sabato|domenica),?\s"
)
_TIME_BEFORE = re.compile(
    rf"(?:(?<![^\W_])(?P<neg>not|nicht|pas|no|non|não|niet|nie|не|لا|不)?\s?)?(?<![^\W_])(?:"
    rf"(?P<less>{_BEFORE_TIME})|(?P<more>{_AFTER_TIME}))(?:\s|(?<=[\u2e80-\uffff])|(?<=['\u2019]))"
    rf"(?:{_TIME_LINK}){{0,3}}\Z"
)
_TIME_AFTER = re.compile(
    r"(?:[^\W\d_]*['\u2019]?[^\W\d_]{0,4}\s)?(?:(?P<less>önce\w*|öncesi\w*|kadar|dek|or "
    r"(?:earlier|before)"
    r"|at the latest)|(?P<more>sonra\w*|itibaren|beri|or later|onwards?|at the earliest"
    r"|oder später|ou plus tard|o más tarde))(?!\w)"
    r"|[^\S\n]?(?:(?P<l>までに|まで|以前|之前|前|止|截止|까지|이전)|(?P<m>以降|以後|以后|から|より後|之后|之後"
    r"|后|後|起|부터|이후))(?![後前])"
)
_TIME_CHARS = 40


def time_bound(text: str, start: int, end: int) -> int:
    """Return what is said of a day or a time in a lower-case text: -1 before it, 1 after it.

    Until it counts as before, and from it as after; 0: neither, or both.

    >>> time_bound("not before 3 may", 11, 16), time_bound("3 ekim'e kadar", 0, 6)
    (1, -1)
    """
    before = _TIME_BEFORE.search(text, max(0, start - _TIME_CHARS), start)
    after = _TIME_AFTER.match(text, end)
    bound = 0
    if before is not None:
        bound = (-1 if before["less"] else 1) * (-1 if before["neg"] else 1)
    if after is not None:
        other = -1 if after["less"] or after["l"] else 1
        bound = other if bound in (0, other) else 0
    return bound


_ARABIC_AND = re.compile(r"(?<!\w)(?:و(?=\w{3})|ف(?=\w{4}))")
_SIGNS = {"less": -1, "more": 1, "l": -1, "m": 1}
_COMPARED_AFTER = re.compile(
    r"[^\S\n]?(?:[^\W\d_]{2,20}\s(?=(?:more|fewer|less|mehr|weniger|de plus|de moins|más|menos|più"
    r"|meno|mais|meer|minder|więcej|mniej)\s(?:than|als|que|di|do|dan|niż)\s))?(?:(?P<more>more"
    r"|higher|mehr|höher|de plus|en plus|más|superior|supérieure?s?|più|superiore|mais"
    r"|meer|hoger|więcej|wyż\w+|больше|выше|fazla|daha (?:fazla|yüksek)|أكثر|多|高)"
    r"|(?P<less>less|fewer|lower|weniger|niedriger|de moins|en moins|menos|inferior|inférieure?s?"
    r"|meno|inferiore"
    r"|minder|lager|mniej|niż\w+|меньше|ниже|eksik|daha (?:az|düşük)|أقل|少|低))"
    r"(?:\s(?:than|als|que|di|do|dan|niż|чем|من))?(?!\w*[a-z])"
)
"""`6 % more`, which is a change; `more than 6 %` is a bound."""
_LIMIT_BEFORE = re.compile(
    r"(?<![^\W_])(?:(?P<less>bis|jusqu['\u2019](?:à|aux?)|fino ai|tot|do)"
    r"|(?P<more>ab|à partir de|from|desde(?: los)?|dai|dagli|a partir de(?: los)?|vanaf|od|от"
    r"|starting at))\s\Z"
)
_LIMIT_AFTER = re.compile(
    r"[^\S\n]?(?:[^\W\d_]{1,12}\s)?(?:(?P<more>or (?:older|more|above)|oder (?:älter|mehr)|et plus"
    r"|ou plus|o más|y más|o più|in su|ou mais|of (?:ouder|meer)|lub więcej|i więcej|ve üzeri)"
    r"|(?P<less>or (?:younger|less|fewer|below)|oder (?:jünger|weniger)|et moins|ou moins|o menos"
    r"|o meno|ou menos|of (?:jonger|minder)|lub mniej|ve altı))(?!\w)"
)
_MORE_AFTER = re.compile(
    r"[^\S\n]?(?:(?!o[rfu]\s|oder\s)[^\W\d_]{2,12}\s)?(?:(?P<more>warmer|hotter|longer|taller|older|faster|heavier|ahead"
    r"|wärmer|länger|älter|schneller|schwerer|plus (?:chaud|long\w*|âgée?|rapide)|más (?:cálid\w+"
    r"|larg[oa])|più (?:cald\w+|lung\w+)|in più|mais (?:quente\w*|long\w+)|a mais|langer|sneller"
    r"|cieple\w*|dłuż\w+|теплее|дольше|(?:daha )?(?:sıcak|uzun)|度?[高暖]|長い)"
    r"|(?P<less>colder|cooler|shorter|younger|slower|lighter|behind|kälter|kühler|kürzer|jünger"
    r"|langsamer|leichter|plus (?:froid\w*|court\w*|jeune|lent\w*)|más (?:fr[íi]\w+|cort\w+)"
    r"|più (?:fredd\w+|cort\w+|breve)|in meno|mais (?:fri\w+|curt\w+)|a menos|kouder|korter|trager"
    r"|zimnie\w*|chłodnie\w+|krócej|холоднее|(?:daha )?(?:soğuk|kısa)|度?[低寒]|短い))(?!\w*[a-z])"
)
_LATER = (
    r"after|later|nach|danach|später|après|plus tard|después|más tarde|dopo|più tardi|após|depois"
    r"|mais tarde|(?<=en )na|(?<=uur )na|(?<=jaar )na|(?<=dag )na|later|po|później|после|позже"
    r"|sonra|geç|بعد|لاحق\w*"
)
_EARLIER = (
    r"before|earlier|prior|vor|zuvor|früher|avant|plus tôt|antes|más temprano|prima|più presto"
    r"|mais cedo|voor|eerder|vroeger|przed|wcześniej|до|раньше|önce|erken|قبل|سابق\w*"
)
_ORDER_AFTER = re.compile(
    rf"[^\S\n]?(?:[^\W\d_]{{2,12}}\s)?(?:(?P<more>{_LATER})|(?P<less>{_EARLIER}))(?!\w)"
    r"|[^\S\n]?[日天年月周週個个分秒时時間小以之か間间]{0,4}(?:(?P<m>[后後降]|晚)|(?P<l>[前早内內]))"
)
_ORDER_BEFORE = re.compile(
    r"(?:(?<![^\W_])(?:(?P<more>after|nach|après|después de|al cabo de|dopo|após|depois de|na|po"
    r"|после|بعد)|(?P<less>before|within|vor|innerhalb von|binnen|dans les|en un plazo de|entro"
    r"|em até"
    r"|w ciągu|przed|قبل|خلال))\s|(?P<m>[后後])|(?P<l>前))\Z"
)
"""Such words do not always say that something changed: a source may have others."""
_NOT_BEFORE_WORD = re.compile(
    r"(?:(?<![^\W_])(?:not?|never|nicht|kein\w*|pas|non|não|niet|geen|nie|не|لا|لم|ألا|no|sin|sans"
    r"|senza|sem|without|ohne|zonder|bez)\s(?:[^\W\d_]+\s){0,4}|n['\u2019]"
    r"|[不未没沒毋勿](?:得|能|可|应|應|会|會|宜|要|有)?)\Z"
)
_TO_LEVEL = re.compile(
    r"[^\S\n](?:to|auf|à|a|al|tot|op|para|em|do|na|إلى|до|til|till|su)[^\S\n](?:[^\W\d_]+[^\S\n])?"
    r"[$€£]?\d[\d.,]*(?:[^\S\n]?[^\W\d_]{1,12}(?=[^\S\n]))?"
)
"""`fell by 3 to 7 points`: where it went to is not what the word is about."""
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
_HAN_NUMBER_BEFORE = re.compile(r"\d[^\s\d。、，,.]*[\u2e80-\u9fff][^\s\d。、，,.]*\Z")
"""Verbs follow their numbers in Chinese and Japanese: one between two is of the first."""
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
    order: int = 0
    """-1 before or within, 1 after."""
    periods: frozenset[str] = frozenset()
    """Per what it is: `month`, `year`."""
    is_needed: bool = False
    """A source must name a change as well: it rose or fell by so much, by a word for just that."""

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
        if self.is_needed and not (other.change or other.result):
            return True
        pairs = zip(
            (self.change, self.bound, self.result, self.order),
            (other.change, other.bound, other.result, other.order),
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
        self._words = sorted((one.start(), one.end(), self._kind_of(one)) for one in found)
        self._starts = [start for start, _, _ in self._words]
        periods = [*matches_at_words(_periods(is_spaced=True), _first_of_periods(), text)]
        if not text.isascii():
            periods += _periods(is_spaced=False).finditer(text)
        periods += _SHORT_PERIODS.finditer(text)
        self._periods = sorted((*one.span(), str(one.lastgroup)) for one in periods)

    def _kind_of(self, found: re.Match[str]) -> str:
        """Return what a word says; a bound that is negated is the opposite one."""
        kind, start = str(found.lastgroup), found.start()
        other = {"most": "least", "least": "most"}.get(kind)
        is_not = other and _NOT_BEFORE_WORD.search(self._text, max(0, start - 60), start)
        return other if other and is_not else kind

    def of(self, start: int, end: int) -> Direction:
        """Return the direction of the number between two offsets."""
        periods = self._periods_of(start, end) if self._periods else frozenset()
        compared = _COMPARED_AFTER.match(self._text, end)
        more = _MORE_AFTER.match(self._text, end)
        first = bisect_left(self._starts, start - _BEFORE_CHARS)
        has_words = first < bisect_left(self._starts, end + _AFTER_CHARS)
        if not (has_words or compared or more):
            limit, order = self._limit(start, end), self._order(start, end)
            if not (periods or limit or order):
                return NO_DIRECTION
            return Direction(bound=limit, order=order, periods=periods)
        bound_end = compared.end() if compared is not None else end
        change = _SIGNS[str(compared.lastgroup)] if compared is not None else 0
        change = change or self._nearest(start, end, "fall", "rise")
        is_level = _LEVEL.search(self._text, max(0, start - _LEVEL_CHARS), start)
        is_level = is_level or _HAN_NUMBER_BEFORE.search(self._text, max(0, start - 16), start)
        is_needed = change != 0 and is_level is None
        change = change or (_SIGNS[str(more.lastgroup)] if more is not None else 0)
        change = change or self._nearest(start, end, "lost", "won")
        bound = self._nearest(start, bound_end, "most", "least")
        return Direction(
            change,
            bound or (0 if change else self._limit(start, end)),
            self._nearest(start, end, "loss", "profit"),
            self._order(start, end),
            periods,
            is_needed,
        )

    def _limit(self, start: int, end: int) -> int:
        """Return whether a number is the last one (until 18) or the first one (from 18 on)."""
        before = _LIMIT_BEFORE.search(self._text, max(0, start - _LEVEL_CHARS - 4), start)
        found = before or _LIMIT_AFTER.match(self._text, end)
        return _SIGNS[str(found.lastgroup)] if found is not None else 0

    def _order(self, start: int, end: int) -> int:
        """Return whether it is so long before or within something (-1), or after it (1)."""
        after = _ORDER_AFTER.match(self._text, end)
        found = after or _ORDER_BEFORE.search(self._text, max(0, start - _LEVEL_CHARS - 4), start)
        return _SIGNS[str(found.lastgroup)] if found is not None else 0

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
            (_TO_LEVEL.sub("", self._text[end : one[0]]), signs[one[2]])
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
        r"|gehalveerd|połow[aęyą]|pół|yarım"
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
    "(?P<p2>一半|半数|半分|절반|半(?=小时|小時|天|[个個]月|公斤|時間))|(?P<m2>两倍|翻倍|翻了一番"
    "|翻番|二倍|倍増|두 배)"
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
