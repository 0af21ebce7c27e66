"""What each verb asks of the API, and what it shows."""

import json
import re

import httpx
import pytest

from scheduler.cli.app import app
from tests.unit.cli.conftest import NOW_MS, attempt, error, job, step, stream

FILE = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: echo hello\n"
NODE = {
    "name": "n1", "state": "ready", "state_reason": "", "cpu_milli": 8000, "cpu_milli_free": 2500, "memory_mib": 16384,
    "memory_mib_free": 512, "simulated": True,
    "devices": [{
        "id": "SIM-0", "index": 0, "model": "H100-SXM-80GB", "kind": "card", "profile": "", "memory_mib": 81559,
        "simulated": True, "health": "ok", "health_reason": "", "job_id": "j17", "lease_id": "l1",
    }],
}  # fmt: skip


def verbs():
    names = [command.name for command in app.registered_commands]
    return [*names, "keys create", "keys list", "keys revoke", "reserve add", "reserve list", "reserve cancel"]


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_with_an_example(shisuan, verb):
    result = shisuan(*verb.split(), "--help")
    assert result.code == 0
    assert f"Example:  shisuan {verb}" in result.out
    assert "--output" in result.out


def test_help_lists_the_verbs_and_exit_codes(shisuan):
    out = shisuan("--help").out
    assert out.index("│ up ") < out.index("│ submit ") < out.index("│ nodes ")
    assert "130 Ctrl-C" in " ".join(out.split())


def test_submit_sends_the_file_its_folder_and_a_request_id(shisuan, api, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "hello.yaml").write_text(FILE)
    api.answers["POST /jobs"] = httpx.Response(201, json=job("waiting"))
    result = shisuan("submit", "jobs/hello.yaml", "--hold")
    [body] = api.bodies("POST", "/jobs")
    assert (body["file"], body["base_dir"], body["hold"]) == (FILE, str(tmp_path / "jobs"), True)
    assert len(body["request_id"]) == 32
    assert result.out == "j17  film  1 step, 4 tasks, waiting\nfollow it: shisuan watch j17\n"


def test_submit_asks_again_with_the_same_request_id_when_the_answer_was_lost(shisuan, api):
    api.answers["POST /jobs"] = [httpx.ReadError("cut"), httpx.Response(201, json=job("waiting"))]
    assert shisuan("submit", "--", "true").code == 0
    first, second = api.bodies("POST", "/jobs")
    assert first == second


def test_a_command_after_dashes_keeps_its_own_options(shisuan, api):
    api.answers["POST /jobs"] = job("waiting")
    shisuan("submit", "--cpus", "2", "--array", "3", "--env", "A=b=c", "--", "python", "-c", "print(1)", "--watch")
    [body] = api.bodies("POST", "/jobs")
    for line in (
        'run: ["python", "-c", "print(1)", "--watch"]',
        "array: 3",
        'env: {"A": "b=c"}',
        'resources: {"cpus": "2"}',
    ):
        assert line in body["file"].splitlines()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["submit", "missing.yaml"], "there is no file missing.yaml"),
        (["submit", "ls"], "there is no file ls. To run a program, put -- before it: shisuan submit -- ls"),
        (["submit"], "give a job file, or a command after --. Try: shisuan submit -- echo hello"),
        (["submit", "."], ". is a folder; give the job file in it"),
        (["submit", "--env", "A", "--", "true"], "--env wants NAME=VALUE, not 'A'"),
        (
            ["submit", "a.yaml", "--", "true"],
            "give either a job file or a command after --, not both (got 'a.yaml' and 'true')",
        ),
        (["cancel", "17"], "'17' is no job id: job ids look like j17. `shisuan get` lists yours."),
        (["retry", "j17", "--index", "3"], "--index needs --step: task numbers belong to a step"),
        (["retry", "j17", "--redo"], "--redo needs --step: say what is to be made again"),
        (
            ["logs", "j17.render.x"],
            "'j17.render.x' names no task: write JOB, JOB.STEP, JOB.STEP.INDEX or JOB.STEP.INDEX.aN, "
            "such as j17.render.3",
        ),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(shisuan, argv, words):
    result = shisuan(*argv)
    assert (result.code, result.err) == (2, f"error: {words}\n")


def test_a_file_that_is_no_text_is_named(shisuan, tmp_path):
    (tmp_path / "scene.blend").write_bytes(b"BLENDER\xff\x00")
    assert shisuan("submit", "scene.blend").err == (
        "error: scene.blend is no text in UTF-8 (byte 7); a job file is YAML text\n"
    )


def test_json_output_is_the_apis_answer_unchanged(shisuan, api):
    api.answers["GET /jobs"] = {"jobs": [job(name="影片")], "later": {"field": [1]}}
    assert json.loads(shisuan("get", "--output", "json").out) == api.answers["GET /jobs"]
    assert json.loads(shisuan("-o", "json", "get").out) == api.answers["GET /jobs"]


def test_get_lists_jobs(shisuan, api):
    api.answers["GET /jobs"] = {"jobs": [job(steps=[step(count=24, succeeded=12, running=2)])]}
    head, line = shisuan("get").out.splitlines()
    assert head.split() == ["JOB", "NAME", "STATE", "DONE", "TASKS", "QUEUE", "AGE", "TOOK"]
    assert " ".join(line.split()) == "j17 film running 50 % 12/24 default 1 min 05 s 1 min 00 s"


def test_names_are_shown_letter_for_letter(shisuan, api):
    api.answers["GET /jobs"] = {"jobs": [job(name="[red]shot[/] \\[x]")]}
    assert "[red]shot[/] \\[x]" in shisuan("get").out


def test_an_empty_park_says_what_to_do_next(shisuan, api):
    api.answers["GET /jobs"] = {"jobs": []}
    assert shisuan("get").out == "No jobs. Submit one: shisuan submit examples/hello.yaml --watch\n"


def test_describe_shows_steps_attempts_waits_and_outputs(shisuan, api):
    failed = attempt(1, 1, "failed", reason="Blender crashed: out of memory")
    api.answers["GET /jobs/j17"] = job(attempts=[attempt(), failed], outputs=["file:///park/0001.png"])
    wait = {"job_id": "j17", "step": "encode", "tasks": 1, "position": 0,
            "reasons": [{"kind": "dependency", "resource": "", "message": "starts after step render"}]}  # fmt: skip
    api.answers["GET /jobs/j17/explain"] = {"waits": [wait]}
    out = shisuan("describe", "j17").out
    for words in (
        "film",
        "j17.render.1.a1",
        "out of memory",
        "starts after step render",
        "file:///park/0001.png",
        "CST",
    ):
        assert words in out


def test_explain_names_each_reason(shisuan, api):
    reasons = [{"kind": "capacity", "resource": "card", "message": "needs 2 cards; n1 has 1 of 8 free"},
               {"kind": "order", "resource": "", "message": "3 jobs are ahead"}]  # fmt: skip
    api.answers["GET /jobs/j17/explain"] = {"waits": [
        {"job_id": "j17", "step": "train", "tasks": 2, "position": 4, "reasons": reasons}]}  # fmt: skip
    lines = shisuan("explain", "j17").out.splitlines()
    assert lines[1].split() == ["train", "2", "4", "needs", "2", "cards;", "n1", "has", "1", "of", "8", "free"]
    assert lines[2].strip() == "3 jobs are ahead"


def test_explain_says_when_a_back_off_ends(shisuan, api):
    reason = {"kind": "backoff", "resource": "3", "message": "task 3 failed and is tried again in 9 s",
              "until_ms": 1_792_000_000_000}  # fmt: skip
    api.answers["GET /jobs/j17/explain"] = {"waits": [
        {"job_id": "j17", "step": "render", "tasks": 1, "position": 0, "reasons": [reason]}]}  # fmt: skip
    said = " ".join(shisuan("explain", "j17").out.split())
    assert "task 3 failed and is tried again in 9 s (at 2026-10-1" in said


def test_redo_is_sent(shisuan, api):
    api.answers["POST /jobs/j17/retry"] = job("waiting")
    shisuan("retry", "j17", "--step", "render", "--index", "3", "--redo")
    assert api.bodies("POST", "/jobs/j17/retry") == [{"step": "render", "indices": [3], "redo": True}]


def test_retry_sends_step_and_tasks(shisuan, api):
    api.answers["POST /jobs/j17/retry"] = job("waiting")
    result = shisuan("retry", "j17", "--step", "render", "--index", "3", "--index", "7")
    assert api.bodies("POST", "/jobs/j17/retry") == [{"step": "render", "indices": [3, 7]}]
    assert result.out == "j17 waits to run again (now waiting)\n"


def test_preempt_says_whether_to_hold(shisuan, api):
    api.answers["POST /jobs/j17/preempt"] = job("held")
    result = shisuan("preempt", "j17", "--hold")
    assert api.bodies("POST", "/jobs/j17/preempt") == [{"hold": True}]
    assert result.out == "j17 is being preempted (now held)\n"


def test_nodes_mark_simulated_cards(shisuan, api):
    api.answers["GET /nodes"] = {"nodes": [NODE]}
    out = shisuan("nodes").out
    assert "2.5 CPUs of 8" in out
    assert "512 MiB of 16 GiB" in out
    assert "0 of 1" in out
    assert "H100-SXM-80GB SIMULATED" in out
    assert "never billed" in out


def test_nodes_name_what_speaks_against_one(shisuan, api):
    why = {"faults_milli": 1_500, "fault_reason": "it was lost: no answer", "fault_ms": 1_792_000_000_000}
    api.answers["GET /nodes"] = {"nodes": [{**NODE, **why}, {**NODE, "name": "well"}]}
    lines = shisuan("nodes").out.splitlines()
    assert "FAULTS" in lines[0]
    assert "1.5" in lines[1]
    assert "it was lost: no answer" in lines[1]
    assert "lost" not in lines[2]


def test_a_lost_node_offers_nothing(shisuan, api):
    api.answers["GET /nodes"] = {"nodes": [{**NODE, "state": "lost", "cpu_milli_free": 8000}]}
    out = shisuan("nodes").out
    assert "0 CPU of 8" in out
    assert "0 MiB of 16 GiB" in out
    assert "0 of 1" in out


def test_plan_shows_starts_and_waits(shisuan, api, tmp_path):
    (tmp_path / "hello.yaml").write_text(FILE)
    api.answers["POST /plan"] = {
        "tasks": 5, "steps": [{"name": "a"}, {"name": "b"}], "waits": [],
        "starts": [{"step": "a", "tasks": 4, "nodes": ["n1", "n2"], "devices": ["GPU-0"]}],
    }  # fmt: skip
    lines = shisuan("plan", "hello.yaml").out.splitlines()
    assert lines[0] == "5 tasks in 2 steps"
    assert lines[2].split() == ["a", "4", "n1,", "n2", "GPU-0"]


def test_keys_create_prints_the_secret_alone_on_standard_output(shisuan, api):
    api.answers["POST /keys"] = {"id": "k1", "key": "sk-secret"}
    result = shisuan("keys", "create", "--tenant", "studio", "--days", "2")
    assert result.out == "sk-secret\n"
    assert "shown this once" in result.err
    [body] = api.bodies("POST", "/keys")
    assert body == {"tenant": "studio", "role": "tenant", "label": "", "expires_ms": NOW_MS + 2 * 86_400_000}


def test_schema_needs_no_service(shisuan, monkeypatch):
    monkeypatch.delenv("SHISUAN_URL")
    assert "properties" in shisuan("schema").out


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def chunks(*texts):
    at, made = 0, []
    for number, text in enumerate(texts):
        at += len(text)
        made.append({"attempt_id": "", "text": text, "next_offset": at, "end": number == len(texts) - 1})
    return [*made, {"attempt_id": "", "text": "", "next_offset": at, "end": True}]


def test_logs_of_a_job_are_those_of_its_first_failure(shisuan, api):
    tries = [attempt(0), attempt(1, 1, "failed", finished_ms=9), attempt(2, 1, "failed", finished_ms=5)]
    api.answers["GET /jobs/j17/attempts"] = {"attempts": tries}
    api.answers["GET /jobs/j17/logs"] = chunks("bang\n")
    result = shisuan("logs", "j17")
    assert (result.out, result.err) == ("bang\n", "==> j17.render.2 (attempt 1) <==\n")


def test_long_lists_are_read_to_their_end(shisuan, api, monkeypatch):
    monkeypatch.setattr("scheduler.cli.client.PAGE", 2)
    pages = [[attempt(0), attempt(1)], [attempt(2, 1, "failed")]]
    api.answers["GET /jobs/j17/attempts"] = [{"attempts": page} for page in pages]
    api.answers["GET /jobs/j17/logs"] = chunks("late\n")
    assert shisuan("logs", "j17").err == "==> j17.render.2 (attempt 1) <==\n"
    asked = [query.get("after") for _, path, query, _ in api.asked if path.endswith("/attempts")]
    assert asked == [None, "j17.render.1.a1"]


def test_follow_goes_on_until_the_end(shisuan, api):
    api.answers["GET /jobs/j17/attempts"] = {"attempts": [attempt(3, 1, "failed"), attempt(3, 2, "running")]}
    waiting = {"attempt_id": "", "text": "", "next_offset": 4, "end": False}
    first, second, last = chunks("one\n", "two\n")
    api.answers["GET /jobs/j17/logs"] = [{**first, "end": False}, waiting, waiting, second, last]
    assert shisuan("logs", "j17.render.3", "-f").out == "one\ntwo\n"
    offsets = [query["offset"] for _, path, query, _ in api.asked if path.endswith("/logs")]
    assert offsets == ["0", "4", "4", "4", "8"]


def test_a_task_that_has_not_started_points_to_explain(shisuan, api):
    api.answers["GET /jobs/j17/attempts"] = {"attempts": []}
    assert shisuan("logs", "j17.render.0").err == (
        "error: j17.render.0 has no log yet: nothing of it has started. Why: shisuan explain j17\n"
    )


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_watch_in_a_pipe_prints_a_line_per_change_and_the_result(shisuan, api):
    running, done = (
        job(steps=[step(running=2, succeeded=2)]),
        job("succeeded", [step(succeeded=4)], outputs=["file:///f.mp4"]),
    )
    api.answers["GET /jobs/j17"] = [job(steps=[step()]), done]
    api.answers["GET /jobs/j17/events"] = stream(running, done)
    result = shisuan("watch", "j17")
    assert result.err.splitlines() == ["j17 render: 2/4 running", "j17 render: 4/4 succeeded"]
    assert result.out.splitlines() == ["j17 film succeeded after 1 min 05 s", "output: file:///f.mp4"]


def test_watch_outlives_the_service(shisuan, api):
    api.answers["GET /jobs/j17"] = [job(), httpx.ConnectError("down"), httpx.ConnectError("down"), job("succeeded")]
    api.answers["GET /jobs/j17/events"] = httpx.ReadError("cut")
    result = shisuan("watch", "j17")
    assert result.code == 0
    assert result.err.count("The service is away") == 1


def test_a_failed_job_points_at_the_log(shisuan, api):
    api.answers["GET /jobs/j17"] = job(
        "failed", reason="task render.1 failed", attempts=[attempt(), attempt(1, 2, "failed")]
    )
    out = shisuan("watch", "j17").out
    assert "reason: task render.1 failed" in out
    assert "log:    shisuan logs j17.render.1.a2" in out


def test_watch_gives_up_on_a_job_that_is_not_there(shisuan, api):
    api.answers["GET /jobs/j99"] = error("NotFound", "no job 'j99'", 404)
    result = shisuan("watch", "j99")
    assert (result.code, result.err) == (2, "error: no job 'j99'\n")


def test_status_says_where_usage_goes_and_how_far_behind_it_is(shisuan, api):
    feed = {"url": "https://ledger.park/in", "state": "retrying", "message": "no answer: refused",
            "cursor": 24, "lag": 3, "delivered": 8, "failures": 5, "next_try_ms": NOW_MS}  # fmt: skip
    api.answers["GET /status"] = {"version": "1", "runtime": {"state": "up", "message": ""}, "counts": {}, "feed": feed}
    out = shisuan("status").out
    for words in ("retrying", "https://ledger.park/in", "up to entry 24", "3 records behind", "no answer: refused"):
        assert words in out
    api.answers["GET /status"]["feed"] = None
    assert "ledger" not in shisuan("status").out


def measured(**more):
    rank = {"node": "n1", "rank": 0, "source": "process", "cpu_ms": 19_000, "until_ms": [], "cpu_series_milli": [],
            "devices": []}  # fmt: skip
    return {"source": "process", "cpu_ms": 19_000, "rss_peak_mib": 1_200, "gpu_milli": None, "ranks": [rank], **more}


def test_describe_shows_what_an_attempt_used(shisuan, api):
    one = attempt(started_ms=NOW_MS - 50_000, measured=measured(gpu_milli=870))
    api.answers["GET /jobs/j17"] = job(attempts=[one])
    api.answers["GET /jobs/j17/explain"] = {"waits": []}
    assert "1.9 CPUs, 1.2 GiB, GPU 87 %" in shisuan("describe", "j17").out


def test_utilisation_adds_up_per_device_and_draws(shisuan, api, tmp_path):
    lease = {"id": "l1", "job_id": "j17", "step": "render", "granted_ms": NOW_MS - 50_000, "closed_ms": NOW_MS - 40_000,
             "attempts": ["j17.render.0.a1"],
             "allocations": [{"node": "n1", "devices": ["SIM-0"], "cpu_milli": 4_000, "card_milli": 0}]}  # fmt: skip
    api.answers["GET /leases"] = {"leases": [lease]}
    api.answers["GET /jobs/j17/attempts"] = {
        "attempts": [attempt(started_ms=NOW_MS - 50_000, measured=measured(), finished_ms=NOW_MS - 40_000)]
    }
    api.answers["GET /nodes"] = {"nodes": [NODE]}
    chart = tmp_path / "busy.png"
    out = shisuan("utilisation", "j17", "--png", str(chart)).out
    for words in ("8 CPUs", "50 %", "47 %", "process", "SIMULATED", "not measured"):
        assert words in out
    assert chart.stat().st_size > 1_000
    api.answers["GET /leases"] = {"leases": []}
    assert "Nothing was held" in shisuan("utilisation", "j17").out


def test_a_drain_says_what_it_stops_and_how_to_undo_it(shisuan, api):
    stop = {"lease_id": "l7", "job_id": "j17", "tenant": "studio", "cards": 2, "nodes": ["n1", "n2"]}
    answer = {"node": {**NODE, "state": "cordoned", "state_reason": "new fan"}, "stops": [stop], "stopping": 1}
    api.answers["POST /nodes/n1/drain"] = [{**answer, "dry_run": True}, {**answer, "dry_run": False}]
    tried = shisuan("drain", "n1", "--reason", "new fan", "--dry-run").out
    assert "Nothing was done. 1 leases would be stopped, 1 are being stopped already." in tried
    out = shisuan("drain", "n1", "--reason", "new fan").out
    assert "n1: cordoned (new fan)" in out
    assert "j17" in out
    assert "2 leases are being stopped. Undo: shisuan uncordon n1" in out
    bodies = api.bodies("POST", "/nodes/n1/drain")
    assert bodies == [{"reason": "new fan", "dry_run": True}, {"reason": "new fan", "dry_run": False}]


def test_a_tried_cordon_shows_the_node_as_it_would_be(shisuan, api):
    api.answers["POST /nodes/n1/cordon"] = {**NODE, "state": "cordoned", "state_reason": "new fan"}
    api.answers["POST /nodes/n1/uncordon"] = {**NODE, "state": "unready", "state_reason": "cordoned in Kubernetes"}
    assert shisuan("cordon", "n1", "--dry-run").out == "n1: cordoned (new fan)\n"
    assert shisuan("uncordon", "n1").out == "n1: unready (cordoned in Kubernetes)\n"


def test_logs_say_on_standard_error_how_an_attempt_ended_and_whose_logs_there_are(shisuan, api):
    api.answers["GET /jobs/j17/attempts"] = {"attempts": [attempt(0, 1, "lost")]}
    end = {"attempt_id": "j17.render.0.a1", "state": "lost", "reason": "image_pull: ErrImagePull: no", "end": True}
    end |= {"rank": 1, "ranks": 4, "text": "", "next_offset": 0, "note": "j17.render.0.a1 did not begin"}
    api.answers["GET /jobs/j17/logs"] = end
    shown = shisuan("logs", "j17.render.0", "--rank", "1")
    assert shown.out == ""
    assert shown.err == (
        "j17.render.0.a1 did not begin\n"
        "==> j17.render.0.a1 lost: image_pull: ErrImagePull: no <==\n"
        "==> rank 1 of 0 to 3: --rank N shows another's <==\n"
    )


def test_prune_says_what_it_deleted_or_would(shisuan, api):
    gone = {"job_id": "j3", "tenant": "studio", "finished_ms": 1_763_000_000_000, "files": 2, "bytes": 2_048}
    answer = {"dry_run": True, "before_ms": 1_763_800_000_000, "files": 2, "bytes": 2_048, "jobs": [gone]}
    api.answers["POST /logs/prune"] = {**answer, "problems": ["no storage for 'gopher://x'"]}
    out = shisuan("prune", "--dry-run", "--keep-days", "30").out
    assert api.asked[-1][3] == {"keep_days": 30, "dry_run": True}
    assert re.search(r"j3 +studio .* 2 +2 KiB", out), out
    assert "not done: no storage for 'gopher://x'" in out
    assert "2 files, 2 KiB, would be deleted: logs of jobs that ended before" in out
    api.answers["POST /logs/prune"] = {**answer, "dry_run": False, "problems": []}
    assert "2 files, 2 KiB, deleted: logs of jobs" in shisuan("prune").out
    assert api.asked[-1][3] == {"keep_days": 0, "dry_run": False}
    assert "--keep-days" in shisuan("prune", "--keep-days", "0").err
