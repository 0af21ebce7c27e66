"""The guides' pictures, drawn anew from a finished demo: ``make pictures``. Its service must still run."""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.e2e.chromium import Chromium

TARGET = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH, COLOURS = 1100, 128
DRAWN = {
    "contact-sheet": "j*-frames-contact-sheet.png",
    "loss": "j*-train-loss.png",
    "gantt": "gantt.png",
    "utilisation": "utilisation.png",
}
PAGES = {"page": ("/", "en-US"), "job": ("/jobs/{film}", "en-US"), "statement": ("/statement", "zh-CN")}


def keep(source, name, *, most_height=1_000):
    """A copy small enough for a repository: scaled, cut, with a palette."""
    with Image.open(source) as image:
        whole = image.convert("RGB")
    if whole.width > WIDTH:
        whole = whole.resize((WIDTH, round(whole.height * WIDTH / whole.width)), Image.Resampling.LANCZOS)
    whole = whole.crop((0, 0, whole.width, min(whole.height, most_height)))
    target = TARGET / f"{name}.png"
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}  {target.stat().st_size // 1024} KiB")


def main(demo):
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, pattern in DRAWN.items():
        found = sorted(demo.glob(pattern), key=lambda path: path.stat().st_mtime)
        keep(found[-1], name)
    home = demo / "home"
    url, key = json.loads((home / "instance.json").read_text())["url"], (home / "key").read_text().strip()
    film = max(demo.glob(DRAWN["contact-sheet"]), key=lambda path: path.stat().st_mtime).name.split("-")[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, language) in PAGES.items():
            (profile := Path(folder, name)).mkdir()
            browser = Chromium(profile, language=language)
            try:
                browser.open(url + path.format(film=film))
                browser.run(
                    f"document.getElementById('key').value = {key!r}; document.querySelector('form.login').submit()"
                )
                browser.until("document.querySelector('form.login') === null && document.readyState === 'complete'")
                keep(browser.screenshot(Path(folder) / f"{name}.png", width=WIDTH), name)
            finally:
                browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo").absolute())
