"""A router in 20 lines, which looks at scripts and a few words only.

uv run check_router.py --router examples.router:route
"""

import unicodedata

SCRIPTS = {"DEVANAGARI": "fire", "BENGALI": "fire", "TAMIL": "fire", "ETHIOPIC": "earth"}
SWAHILI = {"ya", "na", "wa", "kwa", "ni", "katika", "hii"}


def route(text: str) -> str:
    """Return the variant that should answer a text."""
    letters = [unicodedata.name(char, "").split(" ")[0] for char in text if char.isalpha()]
    script = max(set(letters), key=letters.count, default="")
    if script in SCRIPTS:
        return SCRIPTS[script]
    if SWAHILI & set(text.lower().split()):
        return "earth"
    return "global"
