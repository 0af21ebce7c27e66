"""Held and busy, per device: by hand-made leases and measurements whose answer is known."""

import random

import pytest

from scheduler.report import figures, utilisation, utilisation_chart

NODES = [
    {"name": "n1", "state": "ready", "cpu_milli": 8_000, "devices": [
        {"id": "GPU-a", "index": 0, "model": "L40S", "profile": "", "simulated": False},
        {"id": "SIM-b", "index": 1, "model": "L40S", "profile": "", "simulated": True},
    ]},
    {"name": "n2", "state": "ready", "cpu_milli": 4_000, "devices": []},
]  # fmt: skip


def lease(number=1, *, start=0, end=10_000, node="n1", devices=(), cpu=4_000, **more):
    part = {"node": node, "devices": list(devices), "cpu_milli": cpu, "card_milli": more.pop("card_milli", 0)}
    return {
        "id": f"l{number}", "job_id": "j2", "step": "render", "granted_ms": start, "closed_ms": end,
        "attempts": [f"j2.render.{number}.a1"], "allocations": more.pop("allocations", [part]), **more,
    }  # fmt: skip


def card(device="GPU-a", gpu=None, series=(), energy=None):
    return {"device": device, "gpu_milli": gpu, "series_milli": list(series), "energy_mj": energy}


def rank(*, cpu_ms=0, until=(), cpu=(), devices=(), node="n1", number=0, source="process"):
    return {
        "node": node, "rank": number, "source": source, "cpu_ms": cpu_ms, "until_ms": list(until),
        "cpu_series_milli": list(cpu), "devices": list(devices),
    }  # fmt: skip


def attempt(*ranks, number=1, start=0, end=10_000):
    measured = {"ranks": list(ranks)} if ranks else None
    return {"id": f"j2.render.{number}.a1", "started_ms": start, "finished_ms": end, "measured": measured}


def rows(leases, attempts, **more):
    return utilisation.build(leases, attempts, NODES, 10_000, **more).rows


def test_half_the_processors_held_and_half_of_those_busy():
    (row,) = rows([lease()], [attempt(rank(cpu_ms=20_000))])
    assert (row.node, row.label, row.is_card) == ("n1", "8 CPUs", False)
    assert (row.held_milli, row.busy_milli, row.measured_milli, row.sources) == (500, 500, 1_000, ("process",))
    assert set(row.held) == {500}
    assert set(row.busy) == {250}


def test_the_series_says_when_and_the_total_fills_its_tail():
    use = rank(cpu_ms=18_000, until=(2_500, 5_000), cpu=(0, 4_000))
    (row,) = rows([lease()], [attempt(use)])
    assert [row.busy[at] for at in (0, 59, 60, 119, 120, 239)] == [0, 0, 500, 500, 200, 200]


def test_a_card_is_busy_where_the_driver_said_so():
    use = rank(until=(5_000, 10_000), cpu=(0, 0), source="nvml", devices=[card(series=(900, None), energy=7_200_000)])
    processors, found = rows([lease(devices=["GPU-a"], end=20_000)], [attempt(use)])
    assert processors.is_card is False
    assert (found.label, found.held_milli, found.busy_milli, found.measured_milli) == ("card 0 L40S", 1_000, 900, 250)
    assert found.cells == ("n1", "card 0 L40S", "100 %", "90 %", "25 %", "nvml", "2.00 Wh")
    assert (found.busy[0], found.busy[-1]) == (900, 0)
    assert found.sentence == "n1 card 0 L40S: held 100 %, busy 90 % of that (nvml)"


def test_two_attempts_on_one_card_are_not_added_up():
    """The driver's figure is the card's: both attempts saw all of it."""
    halves = [lease(n, devices=["GPU-a"], card_milli=500) for n in (1, 2)]
    seen = [attempt(rank(devices=[card(gpu=800)], source="nvml"), number=n) for n in (1, 2)]
    found = rows(halves, seen)[1]
    assert (found.held_milli, found.busy_milli, max(found.busy)) == (1_000, 800, 800)


def test_what_nobody_measured_is_told():
    _, found = rows([lease(devices=["SIM-b"])], [attempt()])
    assert (found.is_simulated, found.busy_milli, found.measured_milli, found.sources) == (True, None, 0, ())
    assert found.cells[3:6] == ("–", "0 %", "not measured")
    assert found.sentence == "n1 card 1 L40S (SIMULATED): held 100 %, not measured"


def test_ranks_are_drawn_on_their_own_nodes():
    parts = [{"node": n, "devices": [], "cpu_milli": 4_000, "card_milli": 0} for n in ("n1", "n2")]
    use = [rank(cpu_ms=10_000), rank(cpu_ms=40_000, node="n2", number=1)]
    first, second = rows([lease(allocations=parts)], [attempt(*use)])
    assert [(r.node, r.held_milli, r.busy_milli) for r in (first, second)] == [("n1", 500, 250), ("n2", 1_000, 1_000)]


def test_everything_shows_what_nobody_held():
    found = rows([lease()], [], everything=True)
    assert [(r.node, r.label, r.held_milli) for r in found] == [
        ("n1", "8 CPUs", 500), ("n1", "card 0 L40S", 0), ("n1", "card 1 L40S", 0), ("n2", "4 CPUs", 0)]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_no_time_is_lost_in_the_columns(seed):
    rng = random.Random(seed)
    spans = [sorted(rng.sample(range(rng.choice((50, 3_000, 900_000))), 2)) for _ in range(rng.randrange(1, 9))]
    sums = utilisation._Rows(NODES, min(a for a, _ in spans), max(b for _, b in spans))
    columns = [0] * utilisation.BINS
    for start, end in spans:
        sums._put(columns, start, end, 1_000)
    assert sum(columns) == 1_000 * sum(end - start for start, end in spans)


def test_an_attempt_in_a_line():
    seen = {"cpu_ms": 19_000, "rss_peak_mib": 1_200, "gpu_milli": 870}
    assert figures.used(seen, 10_000) == "1.9 CPUs, 1.2 GiB, GPU 87 %"
    assert figures.used(seen | {"rss_peak_mib": None, "gpu_milli": None}, 0) == "19000 CPUs"
    assert figures.used(None, 10_000) == "–"


def test_the_chart_shows_held_and_busy_and_names_what_is_not_measured(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    use = rank(cpu_ms=20_000, until=(10_000,), cpu=(2_000,), source="nvml", devices=[card(series=(700,))])
    leases = [lease(devices=["GPU-a"]), lease(2, devices=["SIM-b"], cpu=0)]
    found = utilisation.build(leases, [attempt(use)], NODES, 10_000)
    with pillow.open(utilisation_chart.draw(found, tmp_path / "u.png", "影片 film [j2]")) as image:
        colours = {c: n for n, c in image.convert("RGB").getcolors(1 << 24)}
    busy, held = (0x00, 0x9E, 0x73), (0xD0, 0xD7, 0xDE)
    assert colours[busy] > 0
    # Two whole cards and half the processors are held; a card is busy for 70 %: the areas must say the same.
    card_strip = colours[busy] / 0.7
    assert 1.2 * card_strip < colours[held] < 1.6 * card_strip  # 30 % of a card + a whole one + 25 % of the processors
    with pytest.raises(ValueError, match="no device"):
        utilisation_chart.draw(utilisation.build([], [], [], 5), tmp_path / "n.png", "nothing")
