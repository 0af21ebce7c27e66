"""The configuration's ``scheduling`` and quotas, felt by jobs that come in over HTTP."""

import pytest

from tests.unit.api.conftest import Installation

CONFIG = """
queues:
  - {name: default, limit: {cpus: 2}}
  - {name: live, guaranteed: {cpus: 2}, lends: {cpus: 1}, jobs_max: 1}
tenants:
  - {name: default, queues: [default, live]}
scheduling:
  bands: {valley: "23:00-07:00", day: "07:00-23:00"}
  licences: {nuke: 1}
"""
HEAD = "kind: CommandJob\napiVersion: shisuan/v1\nname: hello\nrun: 'true'\n"


@pytest.fixture
def park(tmp_path):
    file = tmp_path / "park.yaml"
    file.write_text(CONFIG)
    made = Installation(tmp_path, config=str(file))
    yield made
    made.close()


def submit(park, text=""):
    return park.submit(HEAD + text).json()["id"]


def why(park, job):
    park.settle()
    waits = park.get(f"/jobs/{job}/explain").json()["waits"]
    return [f"{r['kind']}:{r['resource']}" for wait in waits for r in wait["reasons"]]


def test_queues_show_their_quotas(park):
    shown = {queue["name"]: queue for queue in park.get("/queues").json()["queues"]}
    assert shown["default"]["limit"] == {"cpu_milli": 2_000}
    assert (shown["live"]["guaranteed"], shown["live"]["lends"]) == ({"cpu_milli": 2_000}, {"cpu_milli": 1_000})
    assert shown["live"]["jobs_max"] == 1


def test_a_price_band_is_waited_for(park):
    assert why(park, submit(park, "band: valley")) == ["calendar:valley"]  # it is 16:00 at UTC+8
    assert park.finish(submit(park, "band: day"))["state"] == "succeeded"


def test_a_seat_is_held_by_one_at_a_time(park):
    first, second = submit(park, "resources: {licences: {nuke: 1}}"), submit(park, "resources: {licences: {nuke: 1}}")
    assert why(park, second) == ["licence:nuke"]
    assert park.finish(first)["state"] == "succeeded"
    assert park.finish(second)["state"] == "succeeded"


def test_a_limit_of_a_queue_and_of_its_jobs_hold(park):
    for _ in range(2):
        submit(park)
    assert why(park, submit(park)) == ["quota:default"]
    submit(park, "queue: live")
    assert why(park, submit(park, "queue: live")) == ["quota:live"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("band: vally", "band: unknown price band 'vally'; did you mean 'valley'? (valid: day, valley)"),
        (
            "resources: {licences: {nuke: 2}}",
            "resources.licences.nuke: asks for 2 seats; the park has 1",
        ),
        (
            "resources: {licences: {houdini: 1}}",
            "resources.licences.houdini: the park has no licence 'houdini' (valid: nuke)",
        ),
    ],
)
def test_what_the_park_does_not_have_is_refused_at_once(park, text, said):
    answer = park.submit(HEAD + text)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)
