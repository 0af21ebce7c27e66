from fractions import Fraction

import pytest

from workers.ffmpeg import Film, frames_argv, probe_argv, video_argv


def film(**over):
    given = {
        "out": "/o/film.mp4",
        "width": 320,
        "height": 180,
        "rate": Fraction(24),
        "crf": 18,
        "preset": "medium",
        "threads": 2,
        **over,
    }
    return Film(**given)


def value(argv, option):
    return argv[argv.index(option) + 1]


def test_ffmpeg_cannot_wait_for_a_keyboard_and_reports_progress():
    argv = frames_argv("ffmpeg", "%08d.png", film())
    assert argv[0] == "ffmpeg"
    assert "-nostdin" in argv
    assert value(argv, "-progress") == "pipe:1"


def test_broken_input_ends_the_encode():
    assert "-xerror" in frames_argv("ffmpeg", "%08d.png", film())


def test_rate_is_a_fraction_never_a_decimal():
    argv = frames_argv("ffmpeg", "%08d.png", film(rate=Fraction(24_000, 1_001)))
    assert value(argv, "-framerate") == "24000/1001"


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25, 2), Fraction(24_000, 1_001), Fraction(60)])
def test_one_frame_is_a_whole_number_of_ticks(rate):
    ticks = int(value(frames_argv("ffmpeg", "%08d.png", film(rate=rate)), "-video_track_timescale"))
    assert ticks >= 10_000
    assert (ticks / rate).denominator == 1


def test_colour_is_tagged_in_the_graph_and_not_by_output_options():
    argv = frames_argv("ffmpeg", "%08d.png", film())
    graph = value(argv, "-filter_complex")
    for part in ("out_color_matrix=bt709", "out_range=tv", "format=yuv420p", "color_primaries=bt709"):
        assert part in graph
    assert not {"-color_primaries", "-color_trc", "-colorspace"} & set(argv)


def test_groups_of_pictures_are_closed_and_two_seconds_long():
    argv = frames_argv("ffmpeg", "%08d.png", film(rate=Fraction(30_000, 1_001)))
    assert value(argv, "-flags") == "+cgop"
    assert value(argv, "-g") == "60"


@pytest.mark.parametrize(("out", "has"), [("/o/a.mp4", True), ("/o/a.mov", True), ("/o/a.mkv", False)])
def test_index_comes_first_where_the_container_has_one(out, has):
    assert ("+faststart" in frames_argv("ffmpeg", "%08d.png", film(out=out))) is has


def test_playlists_cannot_reach_the_network():
    argv = video_argv("ffmpeg", "/in.mov", film(), conform=False, audio=False)
    assert value(argv, "-protocol_whitelist") == "file,pipe"


def test_pictures_of_an_even_source_keep_their_number_and_get_exact_times():
    rate = Fraction(24_000, 1_001)
    graph = value(video_argv("ffmpeg", "/in.mov", film(rate=rate), conform=False, audio=False), "-filter_complex")
    assert graph.index("settb=expr=1001/24000") < graph.index("setpts=N") < graph.index("fps=fps=24000/1001")


def test_conforming_goes_by_the_source_times():
    graph = value(video_argv("ffmpeg", "/in.mov", film(), conform=True, audio=False), "-filter_complex")
    assert "setpts" not in graph
    assert "fps=fps=24" in graph


def test_sound_is_mapped_only_where_there_is_some():
    silent = video_argv("ffmpeg", "/in.mov", film(), conform=False, audio=False)
    loud = video_argv("ffmpeg", "/in.mov", film(), conform=False, audio=True)
    assert "0:a:0" not in silent
    assert "0:a:0" in loud
    assert value(loud, "-acodec") == "aac"


def test_probe_uses_what_a_real_film_needs():
    argv = probe_argv("/bin/ffmpeg")
    assert value(argv, "-vcodec") == "libx264"
    assert value(argv, "-fps_mode") == "passthrough"
    assert "setparams" in value(argv, "-filter_complex")


def test_same_film_gives_the_same_argv():
    assert frames_argv("ffmpeg", "%08d.png", film()) == frames_argv("ffmpeg", "%08d.png", film())
