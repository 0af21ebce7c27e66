"""Numbers, sums and layouts of what people are shown."""

from datetime import UTC

import pytest

from scheduler.report import figures, timeline, usage


@pytest.mark.parametrize(
    ("length_ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1_000, "1.0 s"), (9_999, "9.9 s"), (10_000, "10 s"), (65_000, "1 min 05 s"),
     (3_600_000, "1 h 00 min"), (90_000_000, "1 d 01 h")],
)  # fmt: skip
def test_durations(length_ms, text):
    assert figures.duration(length_ms) == text


def test_other_figures_carry_their_units():
    assert figures.memory(1536) == "1.5 GiB"
    assert figures.memory(512) == "512 MiB"
    assert figures.size(3_500_000) == "3.3 MiB"
    assert figures.cpus(500) == "0.5 CPU"
    assert figures.cpus(2_000) == "2 CPUs"
    assert figures.percent(999) == "99 %"
    assert figures.instant(1_763_812_800_000, UTC) == "2025-11-22 12:00:00 UTC"
    assert figures.hours("card", 3_600_000_000) == "1.000000"
    assert figures.hours("memory", 1024 * 3_600_000 // 2) == "0.500000"
    assert [figures.axis(ms) for ms in (0, 500, 45_000, 150_000, 3_900_000)] == [
        "0",
        "0.5 s",
        "45 s",
        "2:30",
        "1:05:00",
    ]


def record(lease="l1", start=0, end=1_000, bucket="held_charged", **quantities):
    return {
        "lease_id": lease, "job_id": "j2", "step": "render", "bucket": bucket, "free_reason": "", "start_ms": start,
        "end_ms": end, "quantities": [{"sku": k, "model": "", "amount": v} for k, v in quantities.items()],
    }  # fmt: skip


def lease(number=1, start=0, end=1_000, **more):
    part = {"node": "n1", "devices": [], "cpu_milli": 1_000, **more.pop("part", {})}
    return {
        "id": f"l{number}", "job_id": "j2", "step": "render", "granted_ms": start, "closed_ms": end,
        "attempts": [f"j2.render.{number}.a1"], "allocations": [part], **more,
    }  # fmt: skip


def attempt(number=1, start=200, end=1_000, state="succeeded"):
    return {"id": f"j2.render.{number}.a1", "state": state, "started_ms": start, "finished_ms": end}


def test_totals_add_amounts_and_leases_per_bucket_and_sku():
    records = [record("l1", 0, 200, "starting", vcpu=200_000), record("l1", 200, 1_000, vcpu=800_000),
               record("l2", 0, 1_000, vcpu=1_000_000)]  # fmt: skip
    first, second = usage.totals(records)
    assert (first.bucket, first.amount, first.leases, first.held_ms) == ("starting", 200_000, 1, 200)
    assert (second.bucket, second.amount, second.leases, second.held_ms) == ("held_charged", 1_800_000, 2, 1_800)


@pytest.mark.parametrize(
    ("spans", "error"),
    [([(0, 400), (400, 1_000)], 0), ([(0, 400), (500, 1_000)], 100), ([(0, 600), (500, 1_000)], 100), ([], 1_000),
     ([(0, 1_200)], 200), ([(0, 1_000), (0, 1_000)], 1_000)],
)  # fmt: skip
def test_conservation_finds_gaps_and_overlaps(spans, error):
    check = usage.conserve([lease()], [record("l1", start, end) for start, end in spans])
    assert check.error_ms == error


def test_open_leases_are_no_gap_yet():
    check = usage.conserve([lease(), lease(2, end=0)], [record()])
    assert (check.error_ms, check.open_leases) == (0, 1)
    assert check.sentence == "1.0 s leased = 1.0 s recorded, error 0 ms (1 lease still open)"


def test_a_lease_is_starting_until_its_runner_runs():
    [row] = timeline.build([lease()], [attempt()], [], 5_000).rows
    assert [(b.state, b.start_ms, b.end_ms) for b in row.bars] == [("starting", 0, 200), ("succeeded", 200, 1_000)]


def test_leases_held_at_once_are_on_slots_of_their_own():
    leases = [lease(1, 0, 100), lease(2, 50, 150), lease(3, 100, 200)]
    rows = timeline.build(leases, [], [], 5_000).rows
    assert [[b.task for b in row.bars] for row in rows] == [["j2.render.1.a1", "j2.render.3.a1"], ["j2.render.2.a1"]]


def test_cards_are_rows_and_simulated_ones_are_marked():
    device = {"id": "SIM-3", "index": 3, "model": "H100-SXM-80GB", "profile": "", "simulated": True}
    nodes = [{"name": "n1", "devices": [device]}]
    [row] = timeline.build([lease(part={"devices": ["SIM-3"]})], [], nodes, 5_000).rows
    assert (row.label, row.simulated) == ("card 3 H100-SXM-80GB", True)


def test_several_tasks_of_one_lease_follow_each_other():
    short = lease(attempts=["j2.render.1.a1", "j2.render.2.a1"])
    tries = [attempt(1, 100, 300), attempt(2, 350, 900)]
    [row] = timeline.build([short], tries, [], 5_000).rows
    spans = [(b.state, b.start_ms, b.end_ms) for b in row.bars]
    assert spans == [("starting", 0, 100), ("succeeded", 100, 300), ("starting", 300, 350), ("succeeded", 350, 900)]


def test_an_open_lease_ends_now():
    line = timeline.build([lease(end=0)], [{**attempt(), "finished_ms": 0, "state": "running"}], [], 5_000)
    assert line.end_ms == 5_000


def test_marks_are_round_and_few():
    assert timeline.ticks(71_000) == tuple(range(0, 71_000, 10_000))
    assert len(timeline.ticks(10**10)) <= 11


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_chart_draws_every_bar_in_its_colour(tmp_path):
    from PIL import Image

    from scheduler.report import gantt

    line = timeline.build([lease(1), lease(2, 0, 900)], [attempt(1), attempt(2, 100, 900, "failed")], [], 5_000)
    target = gantt.draw(line, tmp_path / "gantt.png", "film 影片 [j2]")
    with Image.open(target) as picture:
        colours = {rgb for _, rgb in picture.convert("RGB").getcolors(1 << 24)}
    assert (0x00, 0x72, 0xB2) in colours
    assert (0xCF, 0x22, 0x2E) in colours


def test_an_empty_timeline_still_draws(tmp_path):
    from scheduler.report import gantt

    assert gantt.draw(timeline.build([], [], [], 5_000), tmp_path / "gantt.png", "nothing").stat().st_size > 0


def test_the_contact_sheet_holds_every_frame(tmp_path):
    from PIL import Image

    from scheduler.report import contact_sheet

    frames = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (320, 180), (number * 30, 200, 50)).save(path)
        frames.append((f"{number:04d}", path))
    target = contact_sheet.draw(frames, tmp_path / "sheet.png", "film: 7 frames")
    with Image.open(target) as sheet:
        colours = {rgb for _, rgb in sheet.convert("RGB").getcolors(1 << 24)}
    assert {(number * 30, 200, 50) for number in range(7)} <= colours


def test_video_facts_come_from_the_stream(tmp_path):
    import av
    import numpy as np

    from scheduler.report import video

    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((36, 64, 3), np.uint8))))
        container.mux(stream.encode())
    facts = video.read(path)
    assert (facts.codec, facts.width, facts.height, facts.frames, facts.duration_ms) == ("h264", 64, 36, 6, 250)
    assert facts.lines()[1].startswith("6 frames at 24 frames/s, 250 ms")


def test_what_is_no_video_is_said(tmp_path):
    from scheduler.report import video

    (tmp_path / "film.mp4").write_bytes(b"no")
    with pytest.raises(ValueError, match="holds no video"):
        video.read(tmp_path / "film.mp4")


def test_text_without_a_font_for_it_is_left_out():
    from scheduler.report.fonts import shown

    assert shown("film 影片 (j2)", has_cjk=False) == "film (j2)"
    assert shown("film 影片 (j2)", has_cjk=True) == "film 影片 (j2)"


def test_a_loss_curve_is_drawn_over_attempts_and_needs_points(tmp_path):
    from PIL import Image

    from scheduler.report.loss_curve import Curve, Point, draw

    points = tuple(Point(step=s, loss=4 / (1 + s), tokens_per_s=100.0 * (s % 3)) for s in range(12))
    path = draw([Curve(label="attempt 1", points=points[:5]), Curve(label="attempt 2", points=points[5:])],
                tmp_path / "new" / "loss.png", "训练 train")  # fmt: skip
    with Image.open(path) as image:
        assert image.size == (1320, 660)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    with pytest.raises(ValueError, match="no loss"):
        draw([Curve(label="attempt 1", points=())], tmp_path / "none.png", "train")
