"""Which font can show Chinese here. Where there is none, pictures show what Latin letters can say."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_CJK = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback")


@cache
def cjk_family() -> str:
    """An installed font family with Chinese glyphs, or empty."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _CJK if name in installed), "")


def shown(text: str, *, has_cjk: bool) -> str:
    """``text``, less what no font here can draw (an empty box helps nobody)."""
    if has_cjk:
        return text
    kept = "".join(c for c in text if ord(c) < 0x2E80)
    return " ".join(kept.split())


def pillow(size: int) -> FreeTypeFont:
    """A font for Pillow: one with Chinese where there is one, else the DejaVu that comes with matplotlib."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont(cjk_family() or "DejaVu Sans"), size)
