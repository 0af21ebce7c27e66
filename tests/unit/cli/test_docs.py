"""The guide names every verb and exit code there is."""

import re
from pathlib import Path

from scheduler.cli.exits import Exit
from scheduler.cli.main import ORDER

GUIDE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")


def test_the_guide_names_every_verb():
    named = set(re.findall(r"`([a-z]+)", GUIDE))
    assert {*ORDER, "keys", "reserve"} <= named


def test_the_guide_names_every_exit_code():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", GUIDE, re.MULTILINE)} == {int(code) for code in Exit}
