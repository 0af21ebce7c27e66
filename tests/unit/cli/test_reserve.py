"""What ``reserve`` and ``queues`` ask of the API, and what they show."""

from tests.unit.cli.conftest import NOW_MS, error

HOUR = 3_600_000
GALA = {
    "name": "gala", "kind": "event", "nodes": ["n1", "n2"], "queues": ["live"], "start_ms": NOW_MS + HOUR,
    "end_ms": NOW_MS + 3 * HOUR, "every_ms": 7 * 24 * HOUR, "repeats": 4, "reason": "New Year", "state": "coming",
    "next_start_ms": NOW_MS + HOUR, "next_end_ms": NOW_MS + 3 * HOUR,
}  # fmt: skip
PAST = GALA | {"name": "old", "state": "past", "next_start_ms": 0, "next_end_ms": 0, "every_ms": 0}


def test_add_sends_what_was_written(shisuan, api):
    api.answers["PUT /reservations/gala"] = GALA
    result = shisuan(
        "reserve", "add", "gala", "--node", "n1", "--node", "n2", "--queue", "live", "--start", "2026-12-31T19:00",
        "--for", "2h", "--every", "7d", "--repeats", "4",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert api.bodies("PUT", "/reservations/gala") == [
        {
            "kind": "event", "nodes": ["n1", "n2"], "start": "2026-12-31T19:00", "end": "", "length": "2h",
            "every": "7d", "repeats": 4, "queues": ["live"], "reason": "",
        }
    ]  # fmt: skip
    assert result.out.startswith("gala: n1, n2 from ")


def test_list_shows_what_is_to_come_and_all_only_when_asked(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    api.answers["GET /reservations"] = {"reservations": [GALA, PAST]}
    out = shisuan("reserve", "list").out
    assert "every 7 d 00 h, 4 times" in " ".join(out.split())
    assert "old" not in out
    assert "old" in shisuan("reserve", "list", "--all").out
    api.answers["GET /reservations"] = {"reservations": [PAST]}
    assert shisuan("reserve", "list").out == "No node is kept for anyone.\n"


def test_cancel_and_a_refusal_word_for_word(shisuan, api):
    api.answers["DELETE /reservations/gala"] = [GALA, error("NotFound", "no reservation 'gala'", 404)]
    assert shisuan("reserve", "cancel", "gala").out == "gala cancelled.\n"
    result = shisuan("reserve", "cancel", "gala")
    assert (result.code, result.err) == (2, "error: no reservation 'gala'\n")


def test_queues_show_their_quotas(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    queue = {"name": "live", "parent": "", "weight": 100, "waiting": 0, "running": 2, "lends": {}, "jobs_max": 0}
    queue |= {"guaranteed": {"card_milli": 8_000, "memory_mib": 1_048_576}, "limit": {"cpu_milli": 500}}
    api.answers["GET /queues"] = {"queues": [queue]}
    out = " ".join(shisuan("queues").out.split())
    assert "8 cards, 1024 GiB" in out or "8 cards, 1 TiB" in out
    assert "0.5 CPUs" in out
