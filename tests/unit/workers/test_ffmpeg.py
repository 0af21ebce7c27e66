from fractions import Fraction

import pytest

from workers.color import Static
from workers.ffmpeg import Cut, Sound, audio_argv, frames_argv, join_argv, probe_argv, raw_argv, video_argv
from workers.ffmpeg_codecs import Film


def film(**over):
    given = {
        "out": "/o/film.mp4",
        "width": 320,
        "height": 180,
        "rate": Fraction(24),
        "encoder": "libx264",
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


@pytest.mark.parametrize(
    ("color", "transfer", "matrix"), [("hlg", "arib-std-b67", "bt2020nc"), ("pq", "smpte2084", "bt2020nc")]
)
@pytest.mark.parametrize(("encoder", "option"), [("libx264", "-x264-params"), ("libx265", "-x265-params")])
def test_hdr_is_tagged_in_the_graph_and_by_the_encoder(color, transfer, matrix, encoder, option):
    argv = frames_argv("ffmpeg", "%08d.png", film(color=color, bits=10, encoder=encoder))
    graph = value(argv, "-filter_complex")
    assert f"color_primaries=bt2020:color_trc={transfer}:colorspace={matrix}:range=tv" in graph
    assert "format=yuv420p10le" in graph
    assert f"colorprim=bt2020:transfer={transfer}:colormatrix={matrix}" in value(argv, option)


def test_hdr10_numbers_are_told_to_the_encoder():
    static = Static(display=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), max_cll=1000, max_fall=400)
    argv = frames_argv("ffmpeg", "%08d.png", film(color="pq", bits=10, encoder="libx265", static=static))
    words = value(argv, "-x265-params")
    assert "master-display=G(1,2)B(3,4)R(5,6)WP(7,8)L(9,10)" in words
    assert "max-cll=1000,400" in words


@pytest.mark.parametrize(("threads", "frame_threads"), [(1, 1), (3, 1), (4, 2), (8, 3), (32, 5)])
def test_x265_does_not_count_the_machines_cores(threads, frame_threads):
    words = value(frames_argv("ffmpeg", "%08d.png", film(encoder="libx265", threads=threads)), "-x265-params")
    assert f"pools={threads}:frame-threads={frame_threads}:open-gop=0" in words


def test_nvenc_takes_ten_bits_as_p010():
    argv = frames_argv("ffmpeg", "%08d.png", film(encoder="hevc_nvenc", bits=10, preset="slow"))
    assert "format=p010le" in value(argv, "-filter_complex")
    assert (value(argv, "-vcodec"), value(argv, "-preset"), value(argv, "-profile:v")) == ("hevc_nvenc", "p5", "main10")


def test_apple_plays_hevc_only_as_hvc1():
    assert value(frames_argv("ffmpeg", "%08d.png", film(encoder="libx265")), "-tag:v") == "hvc1"
    assert "-tag:v" not in frames_argv("ffmpeg", "%08d.png", film(encoder="libx265", out="/o/a.mkv"))


def test_linear_pictures_come_through_a_pipe_in_16_bits():
    argv = raw_argv("ffmpeg", 65, 37, film(bits=10))
    assert value(argv, "-pixel_format") == "rgb48le"
    assert value(argv, "-video_size") == "65x37"
    assert value(argv, "-i") == "pipe:0"


def test_a_part_is_told_by_the_frames_own_times():
    cut = Cut(begin=77_077, end=154_154, seek_s=Fraction(2), tick_s=Fraction(1, 30_000), frames=77)
    argv = video_argv("ffmpeg", "/in.mov", film(rate=Fraction(30_000, 1_001)), cut=cut)
    graph = value(argv, "-filter_complex")
    assert "settb=expr=1/30000" in graph
    assert graph.index("trim=end_pts=154154:start_pts=77077") < graph.index("setpts=N")
    assert (value(argv, "-ss"), value(argv, "-frames:v")) == ("2.000000", "77")
    assert {"-copyts", "-noaccurate_seek"} < set(argv[: argv.index("-i")])
    assert not {"-t", "-to"} & set(argv)


def test_joining_copies_and_takes_sound_and_timecode_once():
    argv = join_argv("ffmpeg", "/s/parts.txt", "/s/audio.m4a", film(encoder="libx265", timecode="01:00:00:00"))
    assert value(argv, "-codec") == "copy"
    assert value(argv, "-timecode") == "01:00:00:00"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-map"] == ["0:v:0", "1:a:0"]


@pytest.mark.parametrize(("shift", "filters"), [(480, "adelay=all=1:delays=480S"), (-480, "atrim=start_sample=480")])
def test_sound_is_moved_to_the_picture_by_samples(shift, filters):
    argv = audio_argv("ffmpeg", "/in.mov", "/o/audio.m4a", Sound(copy=False, shift_samples=shift))
    assert filters in value(argv, "-filter_complex")


def test_groups_of_pictures_are_closed_and_two_seconds_long():
    argv = frames_argv("ffmpeg", "%08d.png", film(rate=Fraction(30_000, 1_001)))
    assert value(argv, "-flags") == "+cgop"
    assert value(argv, "-g") == "60"


@pytest.mark.parametrize(("out", "has"), [("/o/a.mp4", True), ("/o/a.mov", True), ("/o/a.mkv", False)])
def test_index_comes_first_where_the_container_has_one(out, has):
    assert ("+faststart+write_colr" in frames_argv("ffmpeg", "%08d.png", film(out=out))) is has


def test_playlists_cannot_reach_the_network():
    argv = video_argv("ffmpeg", "/in.mov", film())
    assert value(argv, "-protocol_whitelist") == "file,pipe"


def test_pictures_of_an_even_source_keep_their_number_and_get_exact_times():
    rate = Fraction(24_000, 1_001)
    graph = value(video_argv("ffmpeg", "/in.mov", film(rate=rate)), "-filter_complex")
    assert graph.index("settb=expr=1001/24000") < graph.index("setpts=N") < graph.index("fps=fps=24000/1001")


def test_conforming_goes_by_the_source_times():
    graph = value(video_argv("ffmpeg", "/in.mov", film(), conform=True), "-filter_complex")
    assert "setpts" not in graph
    assert "fps=fps=24" in graph


def test_sound_is_mapped_only_where_there_is_some():
    silent = video_argv("ffmpeg", "/in.mov", film())
    loud = video_argv("ffmpeg", "/in.mov", film(), sound=Sound(copy=False))
    assert "-acodec" not in silent
    assert "[0:a:0]" in value(loud, "-filter_complex")
    assert value(loud, "-acodec") == "aac"


def test_probe_uses_what_a_real_film_needs():
    argv = probe_argv("/bin/ffmpeg", film(encoder="libx265", bits=10))
    assert value(argv, "-vcodec") == "libx265"
    assert "format=yuv420p10le" in value(argv, "-filter_complex")
    assert value(argv, "-fps_mode") == "passthrough"
    assert "setparams" in value(argv, "-filter_complex")


def test_same_film_gives_the_same_argv():
    assert frames_argv("ffmpeg", "%08d.png", film()) == frames_argv("ffmpeg", "%08d.png", film())
