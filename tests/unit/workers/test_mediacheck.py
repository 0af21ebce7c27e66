import struct
import zlib

import numpy
import OpenEXR
import pytest
from PIL import Image

from workers.mediacheck import BadMedia, check_exr, check_png
from workers.videocheck import video_facts


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    noise = numpy.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def exr(tmp_path):
    """Writes an EXR of noise; ``change`` edits the picture first."""

    def make(change=lambda picture: None, compression=OpenEXR.ZIP_COMPRESSION, **header):
        picture = numpy.random.default_rng(1).random((50, 40, 3), dtype=numpy.float32) + 0.1
        change(picture)
        path = tmp_path / "a.exr"
        attributes = {"compression": compression, "type": OpenEXR.scanlineimage, **header}
        OpenEXR.File(attributes, {"RGB": picture}).write(str(path))
        return path

    return make


def fault(check, path, **options):
    with pytest.raises(BadMedia) as caught:
        check(path, **options)
    return str(caught.value)


def test_whole_png(png):
    facts = check_png(png, decode=True)
    assert (facts.width, facts.height, facts.bit_depth) == (30, 20, 8)


def test_every_cut_of_a_png_is_seen(png):
    data = png.read_bytes()
    for length in range(len(data)):
        png.write_bytes(data[:length])
        assert fault(check_png, png)


def test_every_changed_byte_of_a_png_is_seen(png):
    data = bytearray(png.read_bytes())
    for at in range(0, len(data), 7):
        png.write_bytes(bytes(data[:at]) + bytes([data[at] ^ 0xFF]) + bytes(data[at + 1 :]))
        assert fault(check_png, png)


def test_png_whose_pixels_are_missing_is_seen_when_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "a.png"
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 20)) + chunk(b"IEND", b""))
    check_png(path)
    assert "decoded" in fault(check_png, path, decode=True)


@pytest.mark.parametrize("check", [check_png, check_exr, video_facts])
@pytest.mark.parametrize(("content", "says"), [(None, "is missing"), (b"", ""), (b"something else entirely", "")])
def test_what_is_no_media_is_refused(tmp_path, check, content, says):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert says in fault(check, path)


def test_whole_exr(exr):
    facts = check_exr(exr())
    assert (facts.width, facts.height, facts.data_window) == (40, 50, (0, 0, 40, 50))
    assert (facts.channels, facts.not_finite, facts.black) == (("B", "G", "R"), 0, False)


def test_exr_data_window_is_kept(exr):
    window = (numpy.array([10, 20], dtype=numpy.int32), numpy.array([49, 69], dtype=numpy.int32))
    assert check_exr(exr(dataWindow=window)).data_window == (10, 20, 50, 70)


def test_exr_values_that_are_no_numbers_are_counted(exr):
    def spoil(picture):
        picture[3, 4, 0] = numpy.nan
        picture[5, 6, 1:] = numpy.inf

    assert check_exr(exr(spoil)).not_finite == 3


def test_exr_of_denoised_darkness_is_black(exr):
    assert check_exr(exr(lambda picture: picture.fill(2e-6))).black


@pytest.mark.parametrize(
    "compression",
    [
        OpenEXR.NO_COMPRESSION,
        OpenEXR.ZIPS_COMPRESSION,
        OpenEXR.ZIP_COMPRESSION,
        OpenEXR.PIZ_COMPRESSION,
        OpenEXR.DWAB_COMPRESSION,
    ],
)
def test_every_cut_of_an_exr_is_seen(exr, compression):
    path = exr(compression=compression)
    check_exr(path)
    data = path.read_bytes()
    for length in sorted({*range(0, len(data), 97), len(data) - 1}):
        path.write_bytes(data[:length])
        # Seen by its structure, before a library that prints to the terminal gets it.
        assert "cannot be decoded" not in fault(check_exr, path)


def test_exr_with_a_hole_in_its_chunk_table_is_seen(exr):
    path = exr()
    data = bytearray(path.read_bytes())
    chunks = -(-50 // 16)
    first = min(i for i in range(len(data) - 8) if struct.unpack_from("<Q", data, i)[0] == i + 8 * chunks)
    data[first + 8 : first + 16] = bytes(8)
    path.write_bytes(data)
    assert "chunk 1 of 4 is missing" in fault(check_exr, path)
