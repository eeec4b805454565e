"""The skeleton of a text: what is left of it without encoding and spelling variants.

Two texts with the same skeleton say the same in other code points, or in another accepted or
careless spelling. Vowel signs and viramas of Indic scripts are kept, because they tell words apart.
"""

from __future__ import annotations

import re
import unicodedata

_NUKTA = 7  # Unicode's canonical combining classes
_POINTS = range(10, 37)  # Hebrew and Arabic vowel points
_ACCENTS = 200  # this class and above: marks over, under and through a letter
_TATWEEL = "\u0640"
_ORDERS = 7  # vowels of an Ethiopic consonant; the first and fourth sound alike in two rows
_ETHIOPIC_ROWS = {  # rows of the same sound in Amharic, by the row that stands for them
    0x1200: (0x1210, 0x1280),
    0x1230: (0x1220,),
    0x12A0: (0x12D0,),
    0x1338: (0x1340,),
}
_ONE_LETTER = {
    "\u0671": "\u0627",  # alef wasla; NFKD takes the other alefs apart
    "\u0649": "\u064a",  # alef maqsura, ya
    "\u06cc": "\u064a",
    "\u0629": "\u0647",  # ta marbuta, ha
    _TATWEEL: "",
}
_FIRST_IS_FOURTH = (0x1200, 0x12A0)
_FOLDED = str.maketrans(_ONE_LETTER) | {
    row + order: first + (0 if order == 3 and first in _FIRST_IS_FOURTH else order)
    for first, rows in _ETHIOPIC_ROWS.items()
    for row in (first, *rows)
    for order in range(_ORDERS)
}


def skeleton(text: str) -> str:
    """Return the letters of ``text`` without marks, spaces, punctuation and variant letters.

    A number before a full stop or bracket at the start, as in a list, is left out too. Digits
    elsewhere and capitals stay.
    """
    text = unicodedata.normalize("NFKD", re.sub(r"^\W*\d+\s*[.)]\s", "", text))
    return "".join(char for char in text if _counts(char)).translate(_FOLDED)


def _counts(char: str) -> bool:
    """Return whether a character is neither a mark, format, space nor punctuation."""
    mark = unicodedata.combining(char)
    if mark == _NUKTA or mark in _POINTS or mark >= _ACCENTS:
        return False
    return unicodedata.category(char)[0] not in "PZ" and unicodedata.category(char) != "Cf"
