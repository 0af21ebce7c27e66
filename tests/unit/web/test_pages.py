"""The page's doors, languages and headers. How it looks is tested in a browser (tests/e2e)."""

import re
import string

import pytest
from starlette.testclient import TestClient

from scheduler.model.lease import AttemptState
from scheduler.model.order import LogChunk
from scheduler.report import figures
from scheduler.web.words import LANGUAGES, WORDS, choose
from tests.unit.api.conftest import Installation

HOSTILE = 'apiVersion: shisuan/v1\nkind: CommandJob\nname: "<img src=x onerror=alert(1)>"\nrun: "true"\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("web"))
    yield made
    made.close()


@pytest.fixture
def browser(service):
    """A browser that has not signed in."""
    return TestClient(service.app, follow_redirects=False, headers={"accept-language": "en"})


@pytest.fixture
def reader(browser, service):
    answer = browser.post("/sign-in", data={"key": service.operator, "back": "/"})
    assert answer.status_code == 303
    return browser


def test_nothing_is_shown_without_a_key(browser, service):
    job = service.submit().json()["id"]
    for path in ("/", f"/jobs/{job}", "/statement"):
        answer = browser.get(path)
        assert answer.status_code == 401
        assert "Sign in" in answer.text
        assert "hello" not in answer.text


def test_a_live_part_without_a_key_makes_the_page_ask_for_it(browser):
    answer = browser.get("/parts/overview", headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"], answer.text) == (401, "true", "")


def test_a_wrong_key_is_refused_in_the_services_words(browser):
    answer = browser.post("/sign-in", data={"key": "sk-wrong", "back": "/"})
    assert answer.status_code == 401
    assert 'class="problem"' in answer.text
    assert "set-cookie" not in answer.headers


def test_the_key_is_kept_out_of_scripts_reach(browser, service):
    answer = browser.post("/sign-in", data={"key": f" {service.operator}\n", "back": "/jobs/j1"})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/jobs/j1"
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("back", ["https://evil.test", "//evil.test", "/\\evil.test", "javascript:alert(1)", ""])
def test_signing_in_leads_nowhere_else(browser, service, back):
    answer = browser.post("/sign-in", data={"key": service.operator, "back": back})
    assert answer.headers["location"] == "/"
    assert browser.get("/zh", params={"back": back}).headers["location"] == "/"


def test_signing_out_forgets_the_key(reader):
    assert reader.get("/").status_code == 200
    reader.post("/sign-out")
    assert reader.get("/").status_code == 401


def test_a_tenant_does_not_see_anothers_job(browser, service):
    job = service.submit().json()["id"]
    browser.post("/sign-in", data={"key": service.key("rival"), "back": "/"})
    answer = browser.get(f"/jobs/{job}")
    assert answer.status_code == 404
    assert f"no job &#39;{job}&#39;" in answer.text


def test_names_from_job_files_are_escaped(reader, service):
    job = service.submit(HOSTILE).json()["id"]
    for path in ("/", f"/jobs/{job}"):
        text = reader.get(path).text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text
        assert "<img src=x" not in text


def test_the_policy_allows_only_this_service_and_no_inline_code(reader, service):
    job = service.submit().json()["id"]
    for path in ("/", f"/jobs/{job}", "/statement", "/parts/overview", "/static/page.css"):
        answer = reader.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<[^>]*\s(?:style|on\w+)=", answer.text)
        assert not re.search(r"(?:src|href)=.https?:", answer.text)


def test_a_part_that_did_not_change_is_not_sent_again(reader):
    first = reader.get("/parts/overview")
    seen = re.search(r"seen=(\w+)", first.text)[1]
    assert reader.get("/parts/overview", params={"seen": seen}).status_code == 204


def test_only_the_files_of_the_page_are_served(browser):
    assert browser.get("/static/htmx.LICENSE").status_code == 200
    for name in ("../pages.py", "%2e%2e/pages.py", "nope.js"):
        assert browser.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [("", "", "en"), ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("", "fr;q=0.9,en;q=0.5,zh;q=0.7", "zh"),
     ("en", "zh-CN", "en"), ("", "zh;q=x,de", "en"), ("xx", "zh", "zh")],
)  # fmt: skip
def test_the_language_is_the_readers(cookie, accept, language):
    assert choose(cookie, accept) == language


def test_the_switch_is_remembered(reader):
    answer = reader.get("/zh", params={"back": "/"})
    assert answer.headers["location"] == "/"
    text = reader.get("/").text
    assert '<html lang="zh-CN">' in text
    assert "作业" in text
    assert "English" in text


def test_every_string_has_both_languages_and_the_same_fields():
    def fields(text):
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, texts in WORDS.items():
        assert len(texts) == len(LANGUAGES), key
        assert all(texts), key
        assert fields(texts[0]) == fields(texts[1]), key


def test_the_job_page_shows_the_whole_story(reader, service):
    job = service.submit().json()["id"]
    for _ in range(50):
        service.workers.do_everything()
        service.cycle.call(lambda engine, now_ms: ((), None))
        if service.get(f"/jobs/{job}").json()["state"] == "succeeded":
            break
    text = reader.get(f"/jobs/{job}").text
    for words in ("succeeded", f"{job}.", "Who held what when", "slot 0", "vCPU-hours", "error 0 ms", "file:///out/"):
        assert words in text, words


def test_the_page_says_what_is_kept_for_a_film_in_both_languages(reader, service):
    film = (
        "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\ndeadline: +600h\nsteps:\n"
        "  - {name: render, kind: command, run: 'true', array: 24, expected: 2m}\n"
        "  - {name: check, kind: command, run: 'true', needs: render}\n"
    )
    planned = service.post("/plan", {"file": film}).json()["deadline"]
    assert planned["promised"]
    job = service.submit(film).json()
    assert [(kept["step"], kept["nodes"] != [], kept["places"] > 0) for kept in job["kept"]] == [
        ("render", True, True),
        ("check", True, True),
    ]
    assert [kept["step"] for kept in planned["kept"]] == ["render", "check"]
    text = reader.get(f"/jobs/{job['id']}").text
    assert f"step render in up to {job['kept'][0]['places']} places of {job['kept'][0]['nodes'][0]}" in text
    reader.get("/zh", params={"back": "/"})
    assert "步骤 render 在 " in reader.get(f"/jobs/{job['id']}").text


def test_the_page_says_why_a_job_waits_and_what_would_start_it(reader, service):
    wide = 'apiVersion: shisuan/v1\nkind: CommandJob\nname: long\ndeadline: +6h\nrun: "true"\n'
    first = service.submit(wide).json()
    assert first["slot"]["nodes"]
    text = reader.get(f"/jobs/{first['id']}").text
    assert "The deadline is promised" in text
    held = service.submit(HOSTILE, hold=True).json()["id"]
    assert f"/jobs/{held}/explain" in reader.get(f"/jobs/{held}").text
    text = reader.get(f"/jobs/{held}/explain").text
    assert "is held; release it to let it start" in text
    assert "onerror=alert(1)>" not in text
    reader.get("/zh", params={"back": "/"})
    assert "为什么在等待" in reader.get(f"/jobs/{held}/explain").text


def test_the_statement_explains_itself_in_both_languages(reader, service):
    job = service.submit().json()["id"]
    service.finish(job)
    month = "2027-01"  # of the fake clock
    text = reader.get("/statement").text
    for words in ("Statement", month, job, "EXAMPLE PRICES", "vCPU-hours", "free: being started", "Ledger up to"):
        assert words in text, words
    assert f"/jobs/{job}" in text
    assert "Cost so far" in reader.get(f"/jobs/{job}").text
    reader.get("/zh", params={"back": "/statement"})
    text = reader.get("/statement", params={"month": month}).text
    for words in ("账单", "示例价格", "应付", "免费：启动中"):
        assert words in text, words
    assert "本月没有入账" in reader.get("/statement", params={"month": "2026-12"}).text
    assert reader.get("/statement", params={"month": "x"}).status_code == 400


def test_every_reason_and_state_has_its_words():
    from scheduler.model.money import Limit

    silent = {Limit.RATIO, Limit.FREE, Limit.NO_PRICE}  # shown as amounts, or as the reason for free time
    assert {f"limit_{one.value}" for one in Limit if one not in silent} <= set(WORDS)
    for state in ("active", "not_yet", "expired", "revoked", "used_up", "not_funded", "draft"):
        assert f"voucher_{state}" in WORDS


def test_a_back_off_is_told_with_its_end_in_both_languages(reader, service):
    job = service.submit().json()["id"]
    service.settle()
    service.workers.finish(f"{job}.command.0.a1", AttemptState.FAILED)
    service.settle()
    (wait,) = service.get(f"/jobs/{job}/explain").json()["waits"]
    (reason,) = wait["reasons"]
    ends = figures.instant(reason["until_ms"])
    assert f"task 0 first, not before {ends}" in reader.get(f"/jobs/{job}").text
    assert f"task 0 first, not before {ends}" in reader.get(f"/jobs/{job}/explain").text
    reader.get("/zh", params={"back": "/"})
    assert f"最先重试任务 0，不早于 {ends}" in reader.get(f"/jobs/{job}").text


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_is_shown_escaped_and_reached_from_its_attempt(reader, service, monkeypatch):
    job = service.submit().json()["id"]
    service.finish(job)
    link = f"/jobs/{job}/log?task=command.0&amp;attempt=1"
    assert f'href="{link}"' in reader.get(f"/jobs/{job}").text
    hostile = LogChunk(text="<script>alert(1)</script>\n", next_offset=26, end=True)
    monkeypatch.setattr(service.workers, "read_log", lambda *_: hostile)
    page = reader.get(f"/jobs/{job}/log", params={"task": "command.0", "attempt": 1})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script>alert" not in page.text
    assert f"shisuan logs {job}.command.0.a1" in page.text
    assert "hx-get" not in page.text.partition('id="live"')[2].partition(">")[0], "it is over: nothing to wait for"


def test_a_log_that_goes_on_is_asked_for_again_and_a_long_one_goes_on_by_pieces(reader, service, monkeypatch):
    job = service.submit().json()["id"]
    service.finish(job)
    asked = []

    def read(node, attempt, offset, limit, rank):
        asked.append(offset)
        return LogChunk(text="x" * limit, next_offset=offset + limit, end=False)

    monkeypatch.setattr(service.workers, "read_log", read)
    page = reader.get(f"/jobs/{job}/log").text
    assert f'hx-get="/parts/jobs/{job}/log?task=command.0&amp;attempt=1&amp;rank=0&amp;offset=0&amp;seen=' in page
    assert "offset=262144" in page
    part = reader.get(f"/parts/jobs/{job}/log", params={"offset": 262_144})
    assert asked[-1] == 262_144
    assert "From the beginning" in part.text
    seen = re.search(r"seen=(\w+)", part.text)[1]
    assert reader.get(f"/parts/jobs/{job}/log", params={"offset": 262_144, "seen": seen}).status_code == 204


def test_a_log_that_is_not_there_says_what_is(reader, service):
    job = service.submit().json()["id"]
    service.finish(job)
    for query, said in (
        ({"rank": 3}, "has rank 0 alone, not 3"),
        ({"task": "command.0", "attempt": 9}, "has one attempt, 1: not 9"),
        ({"task": "x.0"}, "valid: command"),
    ):
        assert said in reader.get(f"/jobs/{job}/log", params=query).text
    chinese = reader.get(f"/jobs/{job}/log", headers={"accept-language": "zh"})
    assert "日志" in chinese.text
