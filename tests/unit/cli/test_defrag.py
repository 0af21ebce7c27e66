"""What ``defrag`` shows, and what it asks of the API."""

from tests.unit.cli.conftest import NOW_MS, error

MOVE = {
    "lease_id": "l1", "job_id": "j1", "step": "train", "nodes": ["n1"], "to": ["n2"], "lost_ms": 35_000,
    "lost_card_milli_ms": 35_000_000, "stops_first": False,
}  # fmt: skip
PLAN = {
    "id": "3f9c0a117be2", "job_id": "j17", "step": "train", "nodes": ["n1", "n1"],
    "moves": [MOVE, MOVE | {"lease_id": "l3", "stops_first": True}], "lost_card_milli_ms": 70_000_000,
    "least_card_milli_ms": 35_000_000, "gained_card_milli_ms": 7_200_000_000, "sooner_ms": 3_600_000,
    "kept_until_ms": NOW_MS,
}  # fmt: skip


def test_the_plan_is_shown_with_its_price_and_moves_nothing(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    api.answers["GET /rearrangements"] = {"rearrangements": [PLAN]}
    out = " ".join(shisuan("defrag", "j17").out.split())
    assert "l1 j1 train n1 n2 35 s (35 card-seconds)" in out
    assert "stops first" in out
    assert "j17.train would start on n1 x2, 1 h 00 min sooner: 7,200 card-seconds gained, 70 card-seconds lost" in out
    assert "(any moves: at least 35 card-seconds)" in out
    assert "defrag j17 --apply 3f9c0a117be2" in out
    assert api.bodies("POST", "/rearrangements") == []


def test_what_was_shown_is_made_by_its_id(shisuan, api):
    api.answers["POST /rearrangements"] = [PLAN, error("Conflict", "the park has changed", 409)]
    assert "2 leases stopped; the room on n1 x2 is kept for j17." in shisuan("defrag", "j17", "--apply", PLAN["id"]).out
    assert api.bodies("POST", "/rearrangements") == [{"job": "j17", "id": PLAN["id"]}]
    result = shisuan("defrag", "j17", "--apply", PLAN["id"])
    assert (result.code, result.err) == (2, "error: the park has changed\n")


def test_nothing_to_move_and_no_job(shisuan, api):
    api.answers["GET /rearrangements"] = {"rearrangements": []}
    assert shisuan("defrag").out.startswith("No moves would let a waiting job start sooner.")
    result = shisuan("defrag", "--apply", "3f9c0a117be2")
    assert result.code == 2
    assert "say for which job" in result.err
