"""Colour tags and HDR10 numbers: from bytes to values, and from damaged bytes to a reason."""

import struct

import pytest

from workers.color import SYSTEMS, Static, Tags, static_of, system_of
from workers.containertags import container_tags
from workers.mediacheck import BadMedia


def pairs(*numbers, denominator):
    return b"".join(struct.pack("=2i", number, denominator) for number in numbers)


# Red, green, blue, white in 1/50,000, then least and most luminance: FFmpeg's order.
DISPLAY = pairs(35400, 14600, 8500, 39850, 6550, 2300, 15635, 16450, denominator=50_000) + pairs(
    50, 10_000_000, denominator=10_000
)


def test_hdr10_numbers_are_read_from_ffmpegs_structures():
    static = static_of(DISPLAY + struct.pack("=2i", 1, 1), struct.pack("=2I", 1000, 400))
    assert static == Static(
        display=(8500, 39850, 6550, 2300, 35400, 14600, 15635, 16450, 10_000_000, 50), max_cll=1000, max_fall=400
    )
    assert static.mastering_text == "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize(
    ("mastering", "light", "found"),
    [
        (b"", b"", None),
        (DISPLAY + struct.pack("=2i", 0, 1), b"", None),
        (b"", struct.pack("=2I", 0, 0), None),
        (b"", struct.pack("=2I", 600, 0), Static(max_cll=600)),
    ],
)
def test_what_is_not_there_is_not_made_up(mastering, light, found):
    assert static_of(mastering, light) == found


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_systems_tags_name_it(name):
    assert system_of(SYSTEMS[name]) == name


def test_a_video_that_says_nothing_is_of_no_system():
    assert (system_of(Tags()), system_of(Tags(transfer="smpte170m"))) == ("", "bt709")


def box(name, *content):
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def movie(colour):
    entry = box(b"hvc1", bytes(78), colour)
    table = box(b"stbl", box(b"stsd", bytes(8), entry))
    video = box(b"trak", box(b"mdia", box(b"minf", box(b"vmhd", bytes(12)), table)))
    sound = box(b"trak", box(b"mdia", box(b"minf", box(b"smhd", bytes(8)))))
    return box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99) + box(b"moov", sound, video)


@pytest.mark.parametrize(
    ("colour", "tags"),
    [
        (box(b"colr", b"nclx", struct.pack(">3HB", 9, 18, 9, 0)), SYSTEMS["hlg"]),
        (box(b"colr", b"nclc", struct.pack(">3H", 9, 16, 9)), Tags("bt2020", "smpte2084", "bt2020nc")),
        (box(b"colr", b"nclx", struct.pack(">3HB", 1, 1, 1, 0x80)), Tags("bt709", "bt709", "bt709", "pc")),
        (box(b"pasp", bytes(8)), Tags()),
        (b"", Tags()),
    ],
)
def test_the_containers_own_tags_are_read(tmp_path, colour, tags):
    path = tmp_path / "a.mp4"
    path.write_bytes(movie(colour))
    assert container_tags(path) == tags


def test_a_container_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    whole = movie(box(b"colr", b"nclx", struct.pack(">3HB", 9, 18, 9, 0)))
    for content in (b"", b"text", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3" + bytes(40), whole[:60]):
        path.write_bytes(content)
        with pytest.raises(BadMedia):
            container_tags(path)
