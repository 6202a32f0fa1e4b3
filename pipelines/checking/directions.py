"""Whether a number rose or fell, and is a least or a most, by the words around it.

A direction belongs to its number: the nearest word of the same clause with no other number between.
Rose and fell are opposites, as are profit and loss, at least and at most, before and after.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .word_scan import alternatives, first_words, matches_at_words

_WORDS: Mapping[str, str] = {
    "fall": r"f[ea]ll(?:en|ing|s)?|dropp?\w*|decreas\w*|declin\w*|los(?:s|ses|t|e|es|ing)"
    r"|lower\w*|down"
    r"|negative|reduc\w*|shr[aiu]nk\w*|cuts?|deficit\w*|slipp?\w*|cheaper|discount\w*"
    r"|slump\w*|plung\w*"
    r"|gesunken|sank|sink\w*|fiel\w*|gefallen|fällt|rückgang\w*|verlust\w*|verringer\w*"
    r"|gesenkt|senk\w*"
    r"|negativ\w*|reduzier\w*|minder\w*|abgenommen|baiss\w*|recul\w*|chut\w*|perte\w*"
    r"|perdu\w*|diminu\w*"
    r"|réduit\w*|réduction\w*|négati\w*|baj[aoó]\w*|caíd\w*|cay\w*|cae[nr]?|pérdida\w*|perdió"
    r"|perdi\w*"
    r"|descen\w*|redu[cj]\w*|disminu\w*|cal[aoò]\w*|cadut\w*|perdit\w*|ridott\w*|riduzion\w*"
    r"|scend\w*|sces[aoie]"
    r"|gedaald\w*|daling\w*|daald\w*|daalt|verlies|verlaagd|gezakt|ca[ií]\w*|caiu|ca[ií]ram"
    r"|queda\w*|perda\w*"
    r"|recuou|prejuízo\w*|diminuiu|reduziu|spad\w*|zmniejsz\w*|strat\w*|obniż\w*|zmala\w*"
    r"|сни[зж]\w*|упал\w*"
    r"|падени\w*|уменьш\w*|сократи\w*|убыт\w*|потер\w*|зни[зж]\w*|впа[вл]\w*|зменш\w*|збит\w*"
    r"|minskad?\w*|sjönk|sjunk\w*"
    r"|förlust\w*|fald\w*|faldt|underskud|gikk ned|falt|kles\w*|pokles\w*|sníži\w*|ztrát\w*|düş\w*"
    r"|azal\w*|zarar\w*|geril\w*|scăd\w*|scade\w*|pierder\w*|csökken\w*|veszteség\w*|laski"
    r"|lasku\w*|tappio\w*|väheni\w*"
    r"|turun|menurun|rugi|giảm|lỗ|انخفض\w*|تراجع\w*|خسار\w*|هبط\w*|ירד\w*|הפסד\w*|ירידה"
    r"|गिर\w*|घट\w*|कमी|हानि"
    r"|下降|减少|降低|下跌|跌|亏损|下調|減少|減|低下|下落|損失|赤字|감소|하락|줄\w*|손실|적자|ลดลง|ลด|ขาดทุน|μείωσ\w*|μειώθ\w*"
    r"|ζημι\w*",
    "rise": r"rise[ns]?|rising|rose|grow\w*|grew|increas\w*|gain\w*|higher|climb\w*|jump\w*"
    r"|soar\w*|surg\w*|profit\w*"
    r"|up|surplus\w*|rais\w*|dearer|stieg\w*|steig\w*|gestiegen|erhöh\w*|zunahm\w*|zugenommen"
    r"|wuchs\w*|gewachsen"
    r"|gewinn\w*|zuwachs|anstieg|hausse|augment\w*|progress\w*|croissance|bénéfice\w*|gagn\w*"
    r"|accru\w*|grimp\w*"
    r"|subi[óòd]\w*|sub[ei]\w*|aument\w*|crec\w*|ganancia\w*|alza|beneficio\w*|cresc\w*"
    r"|salit\w*|sal[eì]|rialz\w*"
    r"|utile|guadagn\w*|gestegen|steeg|stijg\w*|groei\w*|winst|verhoogd|subiu|subiram|cresceu"
    r"|lucro\w*"
    r"|ganh\w*|wzrost\w*|wzros\w*|wzrós\w*|zwiększ\w*|podni\w*|zysk\w*|вырос\w*|рост\w*"
    r"|увелич\w*|повы[сш]\w*"
    r"|прибыл\w*|возрос\w*|зріс|зрос\w*|збільш\w*|прибут\w*|підвищ\w*|ökad?\w*|öka[rtd]\w*"
    r"|steg|stig\w*|vinst\w*"
    r"|høyere|overskud\w*|øk\w*|vzrost\w*|stoupl\w*|zvýši\w*|zisk\w*|art[ıt]\w*|yüksel\w*"
    r"|büyü\w*|k[âa]r"
    r"|creșt\w*|cresc\w*|profit\w*|nőtt|növe\w*|emelk\w*|nyereség\w*|nousi\w*|kasvo\w*"
    r"|voitto\w*|naik|meningkat|laba"
    r"|tăng|lãi|ارتفع\w*|زاد\w*|زياد\w*|ربح|أرباح|עלה|עלת\w*|עלייה|רווח\w*|बढ़\w*|वृद्धि|लाभ"
    r"|上升|增长|增加|上涨|提高"
    r"|涨|盈利|利润|增|増加|上昇|増|黒字|利益|値上\w*|증가|상승|늘\w*|이익|흑자|เพิ่มขึ้น|เพิ่ม|กำไร|αυξ\w*|αύξη\w*|κέρδ\w*",
    "most": r"at most|no more than|not more than|up to|maximum|less than|fewer than|under|below"
    r"|within|not exceed\w*|max|höchstens|maximal|bis zu|weniger als|unter|nicht mehr als|au "
    r"plus|au maximum"
    r"|moins de|maximum|inférieur\w*|como máximo|máximo|menos de|hasta|inferior\w*|al massimo"
    r"|massimo|meno di|fino a"
    r"|hoogstens|ten hoogste|maximaal|minder dan|no máximo|até|abaixo de|najwyżej|maksymalnie"
    r"|mniej niż|poniżej"
    r"|не более|максимум|менее|меньше|до|не больше|не більше|högst|max(?:imalt)?|mindre än"
    r"|under|nejvýše|maximálně"
    r"|en fazla|en çok|azami|最多|不超过|至多|不到|以下|低于|以内|未満|최대|이하|미만"
    r"|على الأكثر|أقل من|לכל היותר"
    r"|פחות מ\w*"
    r"|अधिकतम|से कम",
    "least": r"at least|no less than|not less than|minimum|more than|over|above|exceed\w*"
    r"|mindestens|mehr als|über|minimal|nicht weniger als|au moins|au minimum|plus de|minimum"
    r"|supérieur\w*"
    r"|al menos|por lo menos|como mínimo|mínimo|más de|superior\w*|almeno|minimo|più di|oltre"
    r"|minstens|ten minste"
    r"|meer dan|minimaal|pelo menos|no mínimo|mais de|acima de|co najmniej|przynajmniej"
    r"|minimum|więcej niż|ponad"
    r"|не менее|минимум|более|больше|свыше|щонайменше|не менше|понад|minst|mer än|över"
    r"|nejméně|alespoň|více než"
    r"|en az|asgari|至少|不少于|超过|以上|高于|最低|少なくとも|최소|이상|초과"
    r"|على الأقل|أكثر من|לפחות|יותר מ\w*"
    r"|न्यूनतम|कम से कम|से अधिक",
}
_IS_UNSPACED = re.compile("[\u2e80-\uffff\u0e00-\u0eff]")


def _pattern(*, is_spaced: bool) -> re.Pattern[str]:
    """Return a pattern of the words of scripts with spaces, or without."""
    kinds = []
    for kind, words in _WORDS.items():
        chosen = [w for w in alternatives(words) if bool(_IS_UNSPACED.match(w)) != is_spaced]
        kinds.append(f"(?P<{kind}>{'|'.join(chosen)})")
    return re.compile(f"(?:{'|'.join(kinds)})" + (r"(?!\w)" if is_spaced else ""))


_SPACED, _UNSPACED = _pattern(is_spaced=True), _pattern(is_spaced=False)
_FIRST_WORDS = first_words("|".join(_WORDS.values()))
_CLAUSE = re.compile(
    r"[.!?;:\n,()、，。；：](?!\d)|\s(?:and|und|et|y|e|en|och|og|i|и|а|but|aber|mais|pero|ma|maar"
    r"|ve|while|whereas|während)\s"
)
_STOP = re.compile(r"[.!?;\n。；](?!\d)")
_BEFORE_CHARS, _AFTER_CHARS = 60, 40


@dataclass(frozen=True, slots=True)
class Direction:
    """What the words around a number say; 0: nothing."""

    change: int = 0
    """-1 fell or lost, 1 rose or won."""
    bound: int = 0
    """-1 at most, 1 at least."""

    def is_opposite(self, other: Direction) -> bool:
        return self.change * other.change < 0 or self.bound * other.bound < 0


NO_DIRECTION = Direction()


class DirectionWords:
    """The words of a text that have a direction."""

    def __init__(self, text: str) -> None:
        """Find them; `text` is in lower case."""
        self._text = text
        found = [*matches_at_words(_SPACED, _FIRST_WORDS, text)]
        if not text.isascii():
            found += _UNSPACED.finditer(text)
        self._words = sorted((one.start(), one.end(), str(one.lastgroup)) for one in found)
        self._starts = [start for start, _, _ in self._words]

    def of(self, start: int, end: int) -> Direction:
        """Return the direction of the number between two offsets."""
        if not self._words:
            return NO_DIRECTION
        return Direction(
            self._nearest(start, end, "fall", "rise"), self._nearest(start, end, "most", "least")
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
