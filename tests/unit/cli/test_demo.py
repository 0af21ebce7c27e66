"""The demo's stages and what it leaves, with a fake API and small real pictures."""

import json

import httpx
import pytest

from scheduler.cli import demo as demo_module
from scheduler.cli.home import Instance
from tests.unit.cli.conftest import NOW_MS, attempt, job, step

FILE = "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\nsteps: []\n"


@pytest.fixture
def running_service(monkeypatch):
    asked = []

    def start(here, options):
        asked.append((here.home, options))
        return Instance(pid=1, url="http://park.test")

    monkeypatch.setattr(demo_module, "start", start)
    return asked


@pytest.fixture
def film(api, tmp_path):
    """A finished film of three frames, as the API tells it."""
    import av
    import numpy as np
    from PIL import Image

    (tmp_path / "film.yaml").write_text(FILE)
    frames = []
    for number in range(1, 4):
        path = tmp_path / f"film.{number:04d}.png"
        Image.new("RGB", (320, 180), (60 * number, 90, 120)).save(path)
        frames.append(str(path))
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((180, 320, 3), np.uint8))))
        container.mux(stream.encode())
    tries = [attempt(i, outputs=[path, path.replace(".png", ".exr")]) for i, path in enumerate(frames)]
    tries.append(attempt(0, name="encode", lease_id="l9", outputs=[(tmp_path / "film.mp4").as_uri()]))
    leases = [
        {
            "id": a["lease_id"], "job_id": "j17", "step": a["step"], "granted_ms": a["started_ms"] - 100,
            "closed_ms": a["finished_ms"], "attempts": [a["id"]],
            "allocations": [{"node": "n1", "devices": [], "cpu_milli": 1000}],
        }
        for a in tries
    ]  # fmt: skip
    records = [
        {
            "id": f"{one['id']}:1", "lease_id": one["id"], "job_id": "j17", "step": one["step"],
            "bucket": "held_charged",
            "start_ms": one["granted_ms"], "end_ms": one["closed_ms"], "free_reason": "", "simulated": False,
            "quantities": [{"sku": "vcpu", "model": "", "amount": 1000 * (one["closed_ms"] - one["granted_ms"])}],
        }
        for one in leases
    ]  # fmt: skip
    api.answers.update({
        "POST /jobs": job("waiting"),
        "GET /jobs/j17": job("succeeded", [step(count=3, succeeded=3)], attempts=tries),
        "GET /jobs/j17/attempts": {"attempts": tries},
        "GET /leases": {"leases": leases},
        "GET /usage": {"records": records},
        "GET /nodes": {"nodes": []},
    })  # fmt: skip
    return tmp_path


def test_the_demo_leaves_its_artefacts_and_says_where(shisuan, film, running_service):
    result = shisuan("demo", "--folder", "out", "--file", "film.yaml")
    assert result.code == 0, result.err
    out = film / "out"
    for name in ("contact-sheet.png", "film.mp4", "gantt.png", "usage.json"):
        assert f"{out}/{name}" in result.out
        assert (out / name).stat().st_size > 0
    assert len(json.loads((out / "usage.json").read_text())["records"]) == 4
    assert "3 frames at 24 frames/s" in result.out
    assert "error 0 ms" in result.out
    assert f"shisuan --home {out}/home down" in result.out
    assert running_service == [(out / "home", ["--root", str(film)])]


def test_the_demo_can_be_run_again(shisuan, api, film, running_service):
    assert shisuan("demo", "--folder", "out", "--file", "film.yaml").code == 0
    assert shisuan("demo", "--folder", "out", "--file", "film.yaml").code == 0
    first, second = api.bodies("POST", "/jobs")
    assert first["request_id"] != second["request_id"]


def test_json_output_names_the_artefacts(shisuan, film, running_service):
    facts = json.loads(shisuan("demo", "--folder", "out", "--file", "film.yaml", "-o", "json").out)
    assert facts["contact_sheet"] == f"{film}/out/contact-sheet.png"
    assert (facts["film_facts"]["frames"], facts["usage_error_ms"]) == (3, 0)


def test_a_failure_names_the_stage_and_shows_the_log(shisuan, api, film, running_service):
    bad = attempt(1, 3, "failed", finished_ms=NOW_MS)
    api.answers["GET /jobs/j17"] = job("failed", reason="task render.1 failed 3 times", attempts=[bad])
    text = "".join(f"line {n}\n" for n in range(40)) + "Error: no such scene\n"
    api.answers["GET /jobs/j17/logs"] = {"text": text, "next_offset": len(text), "end": True}
    result = shisuan("demo", "--folder", "out", "--file", "film.yaml")
    assert result.code == 1
    assert "the demo stopped at: Render and encode" in result.err
    assert "task render.1 failed 3 times" in result.err
    assert "the last lines of j17.render.1.a3:" in result.err
    assert "Error: no such scene" in result.err
    assert "line 10" not in result.err


def test_a_service_that_does_not_start_names_the_stage(shisuan, film, monkeypatch):
    from scheduler.cli.exits import CliError

    def start(here, options):
        raise CliError("Ray did not start")

    monkeypatch.setattr(demo_module, "start", start)
    result = shisuan("demo", "--folder", "out", "--file", "film.yaml")
    assert (result.code, "the demo stopped at: Start the service\n  Ray did not start" in result.err) == (1, True)


def test_a_job_without_pictures_is_a_failure(shisuan, api, film, running_service):
    api.answers["GET /jobs/j17/attempts"] = {"attempts": []}
    result = shisuan("demo", "--folder", "out", "--file", "film.yaml")
    assert result.code == 1
    assert "the job published no PNG previews" in result.err


def test_another_programs_error_is_a_line_too(shisuan, api):
    api.answers["GET /jobs"] = httpx.Response(200, json={"unexpected": 1})
    result = shisuan("get")
    assert result.code == 1
    assert result.err.startswith("error: internal error, please report it: KeyError")
