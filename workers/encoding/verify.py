"""Reads a film back: exit code 0 and a file under the right name prove nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from workers.color import Static, Tags
from workers.containertags import container_tags
from workers.encoding import sound
from workers.ffmpeg_codecs import Film
from workers.mediacheck import BadMedia
from workers.videocheck import VideoFacts, bitstream, video_facts


def film(
    path: Path, wanted: Film, *, frames: int, duration_s: Fraction, samples: int = -1, audio: str = ""
) -> VideoFacts:
    """Facts with every frame's hash. Raises BadMedia when the film is not exactly what was planned.

    ``frames`` 0: not known beforehand. ``samples`` -1: the film must be silent.
    """
    try:
        facts = video_facts(path, hashes=True)
        tags, static = bitstream(path)
        told = container_tags(path)
    except BadMedia as fault:
        raise BadMedia(f"the film that ffmpeg made {fault}") from fault
    problems = [
        f"{name} is {got or 'none'}, should be {should or 'none'}"
        for name, got, should in (
            ("codec", facts.codec, wanted.codec),
            ("size", f"{facts.width}x{facts.height}", f"{wanted.width}x{wanted.height}"),
            ("pixel format", facts.pix_fmt, wanted.pix_fmt),
            ("frame count", facts.frames, frames or facts.frames),
            ("color in the stream", str(tags), str(wanted.tags)),
            ("color in the container", str(told), str(_without_range(wanted.tags, path))),
            ("HDR10 metadata", _shown(static), _shown(wanted.static)),
            ("sound", facts.audio, audio),
            ("timecode", facts.timecode, wanted.timecode),
        )
        if got != should
    ]
    problems += _timing(facts, wanted, frames, duration_s)
    if audio and facts.audio == audio:
        problems += filter(None, [sound.wrong(path, audio, samples)])
    if problems:
        raise BadMedia(f"the film that ffmpeg made is wrong: {'; '.join(problems)}")
    return facts


def _without_range(tags: Tags, path: Path) -> Tags:
    """QuickTime's colour atom cannot tell the range: there the stream alone does."""
    return replace(tags, range="") if path.suffix.lower() == ".mov" else tags


def _timing(facts: VideoFacts, wanted: Film, frames: int, duration_s: Fraction) -> list[str]:
    problems = []
    if not _has_rate(facts, wanted.rate):
        problems.append(f"its frames are not evenly spaced at {wanted.rate} per second")
    if abs(facts.start_s) > facts.tick_s:
        problems.append(f"its first frame is at {float(facts.start_s):.3f} s, should be at 0")
    # A conformed source may end anywhere inside its last frame.
    slack_s = facts.tick_s if frames else 1 / wanted.rate + facts.tick_s
    if abs(facts.duration_s - duration_s) > slack_s:
        problems.append(f"it is {float(facts.duration_s):.3f} s long, should be {float(duration_s):.3f} s")
    return problems


def _has_rate(facts: VideoFacts, rate: Fraction) -> bool:
    """Containers with a coarse clock (Matroska: 1 ms) cannot hold the rate itself, so compare over the whole film."""
    if facts.frames == 1 or facts.rate == rate:
        return True
    return facts.rate is not None and abs(facts.frames / facts.rate - facts.frames / rate) <= 2 * facts.tick_s


def _shown(static: Static | None) -> str:
    if static is None:
        return ""
    return f"{static.mastering_text or 'no display'} CLL {static.max_cll},{static.max_fall}"
