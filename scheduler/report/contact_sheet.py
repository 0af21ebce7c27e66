"""All frames at a glance: a grid of thumbnails with their numbers. Imports Pillow only when it draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.report.fonts import cjk_family, pillow, shown

if TYPE_CHECKING:
    from PIL import Image

_MARGIN = 12
_GAP = 8
_CAPTION = 20
_TITLE = 44
_BACKGROUND = "#16181d"
_TEXT = "#e6e6e6"
_FAINT = "#8b949e"


def draw(
    frames: Sequence[tuple[str, Path]], target: Path, title: str, *, columns: int = 6, thumb_width: int = 240
) -> Path:
    """Write a sheet of ``(caption, image file)`` as PNG to ``target``. Raises ValueError without frames."""
    from PIL import Image, ImageDraw

    if not frames:
        raise ValueError("no frames to show")
    thumbs = [(caption, _thumb(path, thumb_width)) for caption, path in frames]
    height = max(image.height for _, image in thumbs)
    columns = min(columns, len(thumbs))
    rows = math.ceil(len(thumbs) / columns)
    size = (
        2 * _MARGIN + columns * thumb_width + (columns - 1) * _GAP,
        _TITLE + _MARGIN + rows * (height + _CAPTION) + (rows - 1) * _GAP,
    )
    sheet = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 11), shown(title, has_cjk=bool(cjk_family())), fill=_TEXT, font=pillow(17))
    small = pillow(11)
    for at, (caption, image) in enumerate(thumbs):
        x = _MARGIN + at % columns * (thumb_width + _GAP)
        y = _TITLE + at // columns * (height + _CAPTION + _GAP)
        sheet.paste(image, (x, y))
        pen.text((x + 1, y + height + 3), caption, fill=_FAINT, font=small)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, optimize=True)
    return target


def _thumb(path: Path, width: int) -> Image.Image:
    from PIL import Image

    with Image.open(path) as image:
        whole = image.convert("RGB")
    height = max(1, round(whole.height * width / whole.width))
    return whole.resize((width, height), Image.Resampling.LANCZOS)
