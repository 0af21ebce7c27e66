"""Sound is encoded once, over the whole programme: pieces of AAC joined are longer than the sound they hold."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from workers.encoding.request import Request
from workers.ffmpeg import Sound
from workers.mediacheck import BadMedia
from workers.videocheck import VideoFacts, audio_samples

COPY_SLACK_S = Fraction(1, 1_000)
AAC_FRAME = 1_024
"""Samples; the last frame of AAC is filled up, and decoders differ in how much lead-in of a source they drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the film's sound must be."""

    filters: Sound
    codec: str
    samples: int
    """Per channel."""


def planned(request: Request, facts: VideoFacts) -> Heard | None:
    """None: the film is silent. Raises BadMedia when the sound cannot be kept as the job asks."""
    if request.audio == "none" or not facts.audio:
        return None
    try:
        count, rate, start_s = audio_samples(request.input)
    except BadMedia as fault:
        raise BadMedia(f"{request.input} {fault}") from fault
    late_s = start_s - facts.start_s
    if request.audio == "copy":
        if abs(late_s) > COPY_SLACK_S:
            raise BadMedia(
                f"{request.input}: sound and picture begin {float(abs(late_s)):.3f} s apart, which a copy cannot keep; "
                "use audio: aac"
            )
        return Heard(filters=Sound(copy=True), codec=facts.audio, samples=count)
    shift = round(late_s * rate)
    return Heard(filters=Sound(copy=False, shift_samples=shift), codec="aac", samples=max(0, count + shift))


def wrong(path: object, codec: str, samples: int) -> str:
    """What is not as planned in a film's sound; empty: all is well."""
    try:
        found, rate, start_s = audio_samples(str(path))
    except BadMedia as fault:
        return str(fault)
    slack = AAC_FRAME if codec == "aac" else 2 * int(COPY_SLACK_S * rate)
    if abs(found - samples) > slack:
        return f"its sound has {found} samples, should have {samples}"
    if abs(start_s) > COPY_SLACK_S:
        return f"its sound begins at {float(start_s):.4f} s, should at 0"
    return ""
