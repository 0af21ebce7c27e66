import pytest
from PIL import Image

from workers.frames import gather, spans
from workers.mediacheck import BadMedia

ALL = (-1, -1, 1)


@pytest.fixture
def folder(tmp_path):
    """Writes small PNGs by name."""

    def write(*names, size=(4, 2)):
        for name in names:
            Image.new("RGB", size).save(tmp_path / name)
        return str(tmp_path)

    return write


def names(pictures):
    return [file.name for file in pictures.files]


def fault(*given):
    with pytest.raises(BadMedia) as caught:
        gather(*given)
    return str(caught.value)


def test_order_is_by_number_not_by_name(folder):
    path = folder("f.9.png", "f.10.png", "f.8.png")
    assert names(gather("folder", path, *ALL)) == ["f.8.png", "f.9.png", "f.10.png"]


def test_folder_passes_over_what_is_no_frame(folder):
    path = folder("f.1.png", "cover.png", ".f.2.png")
    assert names(gather("folder", path, *ALL)) == ["f.1.png"]


def test_folder_with_a_gap_names_it(folder):
    path = folder("f.1.png", "f.2.png", "f.5.png", "f.7.png")
    assert fault("folder", path, *ALL).startswith("3 of 7 frames are missing")
    assert fault("folder", path, *ALL).endswith(": 3-4, 6")


def test_every_second_frame_is_no_gap(folder):
    path = folder("f.1.png", "f.3.png", "f.5.png")
    assert len(gather("folder", path, -1, -1, 2).files) == 3


def test_range_of_a_folder_includes_its_last_frame(folder):
    path = folder(*(f"f.{n}.png" for n in range(1, 9)))
    assert names(gather("folder", path, 3, 5, 1)) == ["f.3.png", "f.4.png", "f.5.png"]
    assert "missing" in fault("folder", path, 3, 9, 1)


def test_two_sequences_in_one_folder_are_refused(folder):
    path = folder("a.1.png", "b.2.png")
    assert "more than one sequence: a., b." in fault("folder", path, *ALL)


def test_one_number_twice_is_refused(folder):
    path = folder("f.1.png", "f.01.png")
    assert "frame 1 twice" in fault("folder", path, *ALL)


def test_empty_folder_and_no_folder(folder, tmp_path):
    assert "no numbered PNG" in fault("folder", folder(), *ALL)
    assert "cannot be read" in fault("folder", str(tmp_path / "none"), *ALL)


def test_pattern_pads_its_numbers(folder):
    path = folder("f.0009.png", "f.0010.png", "f.0011.png")
    assert names(gather("pattern", f"{path}/f.####.png", 9, 11, 2)) == ["f.0009.png", "f.0011.png"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("f.png", "one run of #"),
        ("f.##.##.png", "one run of #"),
        ("f.##.jpg", "not a sequence of PNG"),
    ],
)
def test_pattern_that_is_none_is_refused(folder, pattern, says):
    assert says in fault("pattern", f"{folder()}/{pattern}", 1, 2, 1)


def test_empty_range_is_refused(folder):
    assert "no frames" in fault("pattern", f"{folder()}/f.#.png", 5, 4, 1)


def test_truncated_frame_is_named(folder, tmp_path):
    path = folder("f.1.png", "f.2.png")
    whole = (tmp_path / "f.2.png").read_bytes()
    (tmp_path / "f.2.png").write_bytes(whole[:-5])
    assert fault("folder", path, *ALL).startswith("frame 2 (f.2.png) is ")
    (tmp_path / "f.2.png").write_bytes(b"")
    assert fault("folder", path, *ALL) == "frame 2 (f.2.png) is empty"


def test_frame_of_another_size_is_named(folder):
    folder("f.1.png")
    path = folder("f.2.png", size=(4, 4))
    assert fault("folder", path, *ALL) == "frame 2 (f.2.png) is 4x4 pixels, the first one is 4x2 pixels"


def test_spans_are_cut_after_some():
    assert spans([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert spans(list(range(0, 40, 2)), most=3) == "0, 2, 4, …"
