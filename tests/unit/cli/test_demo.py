"""The demo's stages and what it leaves, with a fake API and small real pictures."""

import json

import httpx
import pytest

from scheduler.cli import demo as demo_module
from scheduler.cli import doctor
from scheduler.cli.artefacts import local_path
from scheduler.cli.exits import CliError
from scheduler.cli.home import Instance
from tests.unit.cli.conftest import NOW_MS, attempt, job, step

FILE = "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\nsteps: []\n"
METRICS = [{"step": s, "loss": 4.0 / s, "tokens_per_s": 900} for s in range(1, 9)]


@pytest.fixture
def running_service(monkeypatch):
    asked = []

    def start(here, options):
        asked.append((here.home, options))
        keys = here.home / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        for tenant in (demo_module.STUDIO, demo_module.LAB):
            (keys / tenant).write_text(f"key-of-{tenant}\n")
        return Instance(pid=1, url="http://park.test")

    monkeypatch.setattr(demo_module, "start", start)
    monkeypatch.setattr(demo_module, "_look_around", lambda here: None)
    return asked


@pytest.fixture
def park(api, tmp_path):
    """A finished film of three frames and a still, and a finished training run, as the API tells them."""
    import av
    import numpy as np
    from PIL import Image

    for name in ("film", "train", "park"):
        (tmp_path / f"{name}.yaml").write_text(FILE.replace("film", name))
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
    (tmp_path / "model.pt").write_bytes(b"weights")
    made = [attempt(i, outputs=[path, path.replace(".png", ".exr")]) for i, path in enumerate(frames)]
    made.append(attempt(0, name="still", lease_id="l8", outputs=[frames[0], frames[0].replace(".png", ".exr")]))
    made.append(attempt(0, name="encode", lease_id="l9", outputs=[(tmp_path / "film.mp4").as_uri()]))
    trained = [
        attempt(0, name="train", id="j18.train.0.a1", job_id="j18", lease_id="l10",
                outputs=[str(tmp_path / "model.pt")], facts=json.dumps({"metrics": METRICS}))
    ]  # fmt: skip
    steps = [step(count=3, succeeded=3), step("still", 1, succeeded=1), step("encode", 1, succeeded=1)]
    steps[2]["kind"] = "transcode"
    learning = [step("train", 1, succeeded=1) | {"kind": "train"}]
    api.answers.update({
        "POST /jobs": [job("waiting"), job("waiting", id="j18")],
        "GET /jobs/j17": job("succeeded", steps, attempts=made),
        "GET /jobs/j18": job("succeeded", learning, id="j18", name="train", tenant="lab", attempts=trained),
        "GET /jobs/j17/attempts": {"attempts": made},
        "GET /jobs/j18/attempts": {"attempts": trained},
        "GET /leases": [{"leases": leases(made)}, {"leases": leases(trained)}],
        "GET /usage": [{"records": records(made)}, {"records": records(trained)}],
        "GET /nodes": {"nodes": []},
        "GET /statement": [bill("studio", "j17"), bill("lab", "j18")],
        "GET /vouchers": {"vouchers": []},
        "GET /policies": {"policies": []},
        "GET /ledger/verify": VERIFIED,
    })  # fmt: skip
    return tmp_path


VERIFIED = {
    "ok": True, "difference": "", "ledger_seq": 9, "ledger_hash": "ab" * 32, "journal_seq": 90, "ledger_cursor": 90,
}  # fmt: skip


def bill(tenant, job_id):
    """A statement with nothing on it."""
    one = {"tenant": tenant, "job_id": job_id, "example": True, "rows": [], "lines": []}
    return {"statements": [one], "ledger_seq": 9, "ledger_hash": "ab" * 32}


def leases(attempts):
    return [
        {
            "id": a["lease_id"], "job_id": a["job_id"], "step": a["step"], "granted_ms": a["started_ms"] - 100,
            "closed_ms": a["finished_ms"], "attempts": [a["id"]],
            "allocations": [{"node": "n1", "devices": [], "cpu_milli": 1000}],
        }
        for a in attempts
    ]  # fmt: skip


def records(attempts):
    return [
        {
            "id": f"{one['id']}:1", "lease_id": one["id"], "job_id": one["job_id"], "step": one["step"],
            "bucket": "held_charged",
            "start_ms": one["granted_ms"], "end_ms": one["closed_ms"], "free_reason": "", "simulated": False,
            "quantities": [{"sku": "vcpu", "model": "", "amount": 1000 * (one["closed_ms"] - one["granted_ms"])}],
        }
        for one in leases(attempts)
    ]  # fmt: skip


def run_demo(shisuan, *more):
    return shisuan(
        "demo", "--folder", "out", "--film", "film.yaml", "--train", "train.yaml", "--park", "park.yaml", *more
    )


def test_the_demo_leaves_its_artefacts_and_says_where(shisuan, park, running_service):
    result = run_demo(shisuan)
    assert result.code == 0, result.err
    out = park / "out"
    for name in ("j17-render-contact-sheet.png", "j18-train-loss.png", "gantt.png", "usage.json"):
        assert f"{out}/{name}" in result.out
        assert (out / name).stat().st_size > 0
    for name in ("film.mp4", "film.0001.png", "film.0001.exr", "model.pt"):
        assert f"{park}/{name}" in result.out
    assert len(json.loads((out / "usage.json").read_text())["records"]) == 6
    assert "3 frames at 24 frames/s" in result.out
    assert "loss 0.500 at step 8" in result.out
    assert "error 0 ms" in result.out
    assert f"shisuan --home {out}/home down" in result.out
    assert running_service == [(out / "home", ["--config", str(park / "park.yaml")])]


def test_the_demo_shows_both_bills_and_the_ledgers_verification(shisuan, api, park, running_service):
    result = run_demo(shisuan)
    assert "studio, job j17" in result.out
    assert "lab, job j18" in result.out
    assert "9 transactions: each comes from the journal" in result.out
    assert json.loads((park / "out" / "bills.json").read_text())["verification"] == VERIFIED


def test_a_ledger_that_does_not_verify_fails_the_demo(shisuan, api, park, running_service):
    api.answers["GET /ledger/verify"] = VERIFIED | {"ok": False, "difference": "transaction 7 has another hash"}
    result = run_demo(shisuan)
    assert (result.code, "transaction 7 has another hash" in result.err) == (1, True)


def test_each_tenant_submits_its_own_job_and_the_demo_can_be_run_again(shisuan, api, park, running_service):
    assert run_demo(shisuan).code == 0
    film, train = api.bodies("POST", "/jobs")
    assert ("name: film" in film["file"], "name: train" in train["file"]) == (True, True)
    assert film["request_id"] != train["request_id"]


def test_json_output_names_the_artefacts(shisuan, park, running_service):
    facts = json.loads(run_demo(shisuan, "-o", "json").out)
    by_kind = {one["kind"]: one for one in facts["artefacts"]}
    assert by_kind["contact_sheet"]["path"] == f"{park}/out/j17-render-contact-sheet.png"
    assert (by_kind["film"]["facts"]["frames"], facts["usage_error_ms"]) == (3, 0)


def test_a_failure_names_the_stage_and_shows_the_log(shisuan, api, park, running_service):
    bad = attempt(1, 3, "failed", finished_ms=NOW_MS)
    api.answers["GET /jobs/j17"] = job("failed", reason="task render.1 failed 3 times", attempts=[bad])
    text = "".join(f"line {n}\n" for n in range(40)) + "Error: no such scene\n"
    api.answers["GET /jobs/j17/logs"] = {"text": text, "next_offset": len(text), "end": True}
    result = run_demo(shisuan)
    assert result.code == 1
    assert "the demo stopped at: Render, encode and train" in result.err
    assert "task render.1 failed 3 times" in result.err
    assert "the last lines of j17.render.1.a3:" in result.err
    assert "Error: no such scene" in result.err
    assert "line 10" not in result.err


def test_a_service_that_does_not_start_names_the_stage(shisuan, park, running_service, monkeypatch):
    from scheduler.cli.exits import CliError

    def start(here, options):
        raise CliError("Ray did not start")

    monkeypatch.setattr(demo_module, "start", start)
    result = run_demo(shisuan)
    assert (result.code, "the demo stopped at: Start the service\n  Ray did not start" in result.err) == (1, True)


def test_what_the_machine_lacks_is_told_before_anything_starts(shisuan, park, monkeypatch):
    def finding(what, verdict, advice=""):
        return doctor.Finding(what=what, verdict=verdict, found="found", advice=advice)

    for name in ("disk", "cards", "ffmpeg", "torch"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda here: finding("fine", doctor.Verdict.OK))
    lack = finding("Blender", doctor.Verdict.MISSING, "install libXrender")
    monkeypatch.setattr(doctor, "check_blender", lambda here: lack)
    monkeypatch.setattr(demo_module, "start", lambda here, options: pytest.fail("it was started"))
    result = run_demo(shisuan)
    assert result.code == 1
    assert "the demo stopped at: Look at this machine\n  Blender: found\n  install libXrender" in result.err


def test_a_report_of_some_jobs_is_drawn_on_demand(shisuan, api, park):
    result = shisuan("report", "j18", "--folder", "seen")
    assert result.code == 0, result.err
    assert f"{park}/seen/j18-train-loss.png" in result.out


def test_another_programs_error_is_a_line_too(shisuan, api):
    api.answers["GET /jobs"] = httpx.Response(200, json={"unexpected": 1})
    result = shisuan("get")
    assert result.code == 1
    assert result.err.startswith("error: internal error, please report it: KeyError")


def test_outputs_in_a_bucket_are_named_not_drawn():
    with pytest.raises(CliError, match=r"outputs: s3://park/film/a\.exr does not lie on this machine"):
        local_path("s3://park/film/a.exr")
