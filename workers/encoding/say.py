"""The runner's voice."""

from __future__ import annotations

import os


def say(word: str, text: str) -> None:
    """One protocol line in one write; the newline first, so that no unfinished line of a log swallows it."""
    lead = "\n" if word in ("done", "fail") else ""
    os.write(1, f"{lead}shisuan_{word}: {' '.join(text.split())}\n".encode())
