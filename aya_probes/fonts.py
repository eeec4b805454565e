"""Fonts for names in figures: every installed font may lend the letters that the default lacks."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text


@contextlib.contextmanager
def drawable(figure: Figure) -> Iterator[None]:
    """Give every text of ``figure`` fonts that hold its letters; save the figure in the context.

    A note names the letters that no installed font holds; they are drawn as boxes. Texts are drawn
    as they are: a dollar sign starts no formula.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        families, missing = choose_fonts(text.get_text())
        if families:
            text.set_fontfamily([*text.get_fontfamily(), *families])
        if missing:
            _note_boxes(missing)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # noted above
        yield


@functools.cache
def choose_fonts(text: str) -> tuple[tuple[str, ...], str]:
    """Return the families that hold what the default font lacks, and the letters none holds."""
    default = font_manager.findfont(font_manager.FontProperties())
    missing = set("".join(text.split())) - _letters(default)
    families: dict[str, None] = {}
    for path in _installed() if missing else ():
        found = missing & _letters(path)
        if found:
            font_manager.fontManager.addfont(path)  # its list may be older than the font
            families[font_manager.get_font(path).family_name] = None
            missing -= found
        if not missing:
            break
    return tuple(families), "".join(sorted(missing))


@functools.cache
def _installed() -> list[str]:
    """Return the files of the installed fonts, those of Noto Sans in a regular weight first."""

    def rank(path: str) -> tuple[bool, bool, str]:
        name = Path(path).name
        return not name.startswith("NotoSans"), "Regular" not in name, path

    return sorted(font_manager.findSystemFonts(), key=rank)


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """Return the characters that a font has glyphs for; none if the file cannot be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@functools.cache
def _note_boxes(letters: str) -> None:
    """Print once that ``letters`` are drawn as boxes."""
    print(
        f"note: no installed font has {' '.join(letters)} (figures show boxes for them); install "
        "one that has, such as Noto Sans of that script, and draw again",
        file=sys.stderr,
    )
