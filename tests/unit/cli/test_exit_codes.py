"""Scripts rely on these numbers."""

import httpx
import pytest

from tests.unit.cli.conftest import error, job, stream


@pytest.mark.parametrize(
    ("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)], ids=["succeeded", "failed", "cancelled"]
)
def test_watch_exits_with_the_jobs_result(shisuan, api, state, code):
    api.answers["GET /jobs/j17"] = [job("running"), job(state)]
    api.answers["GET /jobs/j17/events"] = stream(job("running"), job(state))
    assert shisuan("watch", "j17").code == code


def test_submit_and_watch_exits_with_the_jobs_result(shisuan, api):
    api.answers["POST /jobs"] = job("waiting")
    api.answers["GET /jobs/j17"] = job("failed")
    assert shisuan("submit", "--watch", "--", "false").code == 1


@pytest.mark.parametrize("argv", [["get", "--no-such-flag"], ["no-such-verb"], ["get", "-o", "xml"], ["logs"]])
def test_a_wrong_command_line_is_2(shisuan, argv):
    assert shisuan(*argv).code == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_a_refusal_is_2_and_says_the_servers_words(shisuan, api, status):
    api.answers["GET /jobs/j17"] = error(
        "Refused", "steps[1].codec: unknown codec 'h265'; did you mean 'hevc'?", status
    )
    result = shisuan("get", "j17")
    assert result.code == 2
    assert result.err == "error: steps[1].codec: unknown codec 'h265'; did you mean 'hevc'?\n"


def test_several_problems_are_listed_one_a_line(shisuan, api):
    api.answers["POST /jobs"] = error("InvalidInput", "a: first\nb: second", 400)
    assert shisuan("submit", "--", "true").err == "error:\n  a: first\n  b: second\n"


def test_no_service_is_4(shisuan, api):
    api.answers["GET /jobs"] = httpx.ConnectError("refused")
    result = shisuan("get")
    assert (result.code, result.err) == (4, "error: nothing answers at http://park.test\n")


def test_no_service_in_this_home_says_how_to_start_one(shisuan, monkeypatch, tmp_path):
    monkeypatch.delenv("SHISUAN_URL")
    result = shisuan("get")
    assert result.code == 4
    assert result.err == (
        f"error: no service runs in {tmp_path}/home. Start one with `shisuan up`, "
        "or name one with SHISUAN_URL and SHISUAN_KEY.\n"
    )


def test_another_program_at_that_address_is_no_stack_trace(shisuan, api):
    api.answers["GET /jobs"] = httpx.Response(502, text="<html>bad gateway")
    result = shisuan("get")
    assert result.code == 2
    assert result.err == "error: http://park.test answered 502 Bad Gateway: is this a shisuan service?\n"


def test_ctrl_c_leaves_the_job_and_says_so(shisuan, api):
    api.answers["GET /jobs/j17"] = job("running")
    api.answers["GET /jobs/j17/events"] = KeyboardInterrupt()
    result = shisuan("watch", "j17")
    assert result.code == 130
    assert "You left; j17 goes on. Back to it: shisuan watch j17   Stop it: shisuan cancel j17" in result.err


def test_the_table_in_help_names_every_code():
    from scheduler.cli.exits import TABLE, Exit

    assert [code for code, _ in TABLE] == list(Exit)
