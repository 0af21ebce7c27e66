"""The sign-in on the page: to the issuer and back."""

import base64
import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from scheduler.control.identity import Person, Sessions
from scheduler.control.tokens import Tokens
from scheduler.model.key import Role
from tests.fakes.issuer import CLIENT
from tests.unit.oidc.conftest import PAGE


@pytest.fixture
def browser(service):
    """A browser that has not signed in."""
    return TestClient(service.app, base_url=PAGE, follow_redirects=False, headers={"accept-language": "en"})


def sessions(service):
    """That sign as the service does."""
    return Sessions(Tokens(service.store.token_secret()).derive("sign-in"))


def leave(browser, back="/"):
    answer = browser.get("/sign-in/oidc", params={"back": back})
    assert answer.status_code == 303
    return answer


def sign_in(browser, issuer, back="/"):
    """The answer to the browser that comes back."""
    return browser.get(issuer.sign_in(leave(browser, back).headers["location"]))


def words(answer):
    return re.search(r'class="problem">([^<]*)', answer.text)


def test_the_page_offers_the_issuer_beside_the_key(browser):
    text = browser.get("/jobs/j1").text
    assert '<a class="issuer" href="/sign-in/oidc?back=/jobs/j1">Sign in with Park SSO</a>' in text
    assert "使用 Park SSO 登录" in browser.get("/", headers={"accept-language": "zh"}).text


def test_without_an_issuer_there_is_no_such_sign_in(tmp_path):
    from tests.unit.api.conftest import Installation

    plain = Installation(tmp_path)
    try:
        other = TestClient(plain.app, follow_redirects=False)
        assert 'class="issuer"' not in other.get("/").text
        assert other.get("/sign-in/oidc").status_code == 404
        assert other.get("/sign-in/oidc/back?code=x&state=y").status_code == 404
        assert plain.get("/jobs", "eyJh.eyJi.c").json()["error"]["message"].startswith("this service knows no OpenID")
    finally:
        plain.close()


def test_whoever_signs_in_sees_their_tenants_jobs(browser, service, issuer):
    theirs = service.submit(key=issuer.token()).json()["id"]
    others = service.submit().json()["id"]
    answer = sign_in(browser, issuer, f"/jobs/{theirs}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{theirs}")
    assert browser.get(f"/jobs/{theirs}").status_code == 200
    assert browser.get(f"/jobs/{others}").status_code == 404


def test_what_is_asked_of_the_issuer(browser, issuer):
    asked = {k: v[0] for k, v in parse_qs(urlsplit(leave(browser).headers["location"]).query).items()}
    again = {k: v[0] for k, v in parse_qs(urlsplit(leave(browser).headers["location"]).query).items()}
    assert (asked["client_id"], asked["redirect_uri"]) == (CLIENT, f"{PAGE}/sign-in/oidc/back")
    assert (asked["response_type"], asked["scope"], asked["code_challenge_method"]) == (
        "code",
        "openid profile",
        "S256",
    )
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[name]) >= 43
        assert asked[name] != again[name]


def test_cookies_are_out_of_scripts_and_strangers_reach(browser, issuer):
    away = leave(browser)
    came = browser.get(issuer.sign_in(away.headers["location"]))
    for answer, name in ((away, "shisuan_leaving"), (came, "shisuan_session")):
        (cookie,) = [c.lower() for c in answer.headers.get_list("set-cookie") if c.startswith(f"{name}=")]
        assert {"httponly", "samesite=lax", "secure"} <= set(re.split(r"; ?", cookie))
    assert "eyJhbGciOi" not in str(browser.cookies), "the issuer's tokens are kept from the browser"


def test_an_answer_counts_in_the_browser_that_asked_and_once(browser, service, issuer):
    where = issuer.sign_in(leave(browser).headers["location"])
    stranger = TestClient(service.app, base_url=PAGE, follow_redirects=False, headers={"accept-language": "en"})
    assert "did not begin this sign-in" in stranger.get(where).text
    leave(stranger)
    assert "belongs to another sign-in" in stranger.get(where).text
    assert stranger.get("/").status_code == 401
    assert browser.get(where).status_code == 303
    assert browser.get(where).status_code == 401, "the cookie is used up"


def test_a_late_answer_is_too_late(browser, service, issuer):
    where = issuer.sign_in(leave(browser).headers["location"])
    state = parse_qs(urlsplit(where).query)["state"][0]
    late = sessions(service).make({"is": "leaving", "state": state, "back": "/"}, service.clock.now)
    browser.cookies.delete("shisuan_leaving")
    browser.cookies.set("shisuan_leaving", late, domain="shisuan.example")
    assert "has expired: sign in again" in browser.get(where).text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonce": "x"}, "made for another sign-in"),
        ({"nonce": None}, "made for another sign-in"),
        ({"aud": "shisuan"}, "not for &#39;shisuan-page&#39;"),
        ({"azp": "other"}, "another client"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"tenant": "studio-z"}, "&#39;studio-z&#39; is not known here"),
        ({"groups": ["prometheus"]}, "opens nothing but /metrics"),
    ],
)
def test_a_token_that_is_not_for_this_is_no_sign_in(browser, issuer, changes, words):
    issuer.changes = changes
    answer = sign_in(browser, issuer)
    assert answer.status_code == 401
    assert words in answer.text
    assert browser.get("/").status_code == 401


def test_the_reason_is_in_the_readers_language(browser, issuer):
    issuer.changes = {"exp": 1_700_000_000}
    where = issuer.sign_in(leave(browser).headers["location"])
    text = browser.get(where, headers={"accept-language": "zh"}).text
    assert "令牌已过期" in text
    assert "expired" not in text


def test_a_refusal_of_the_issuer_is_shown_escaped(browser, issuer):
    where = leave(browser).headers["location"]
    state = parse_qs(urlsplit(where).query)["state"][0]
    answer = browser.get(
        "/sign-in/oidc/back",
        params={"state": state, "error": "access_denied", "error_description": "<b>no</b>"},
    )
    assert "the issuer refused: &lt;b&gt;no&lt;/b&gt;" in answer.text


def test_an_answer_of_another_issuer_is_refused(browser, issuer):
    where = issuer.sign_in(leave(browser).headers["location"])
    head, _, _ = where.partition("&iss=")
    assert "the answer is of" in browser.get(f"{head}&iss=https://evil.example").text


def test_a_silent_issuer_is_said(browser, service, issuer):
    issuer.says = {}
    where = issuer.sign_in(leave(browser).headers["location"])
    issuer.status = 503
    assert "answers 503: temporarily_unavailable" in browser.get(where).text


def test_signing_out_and_time_end_it(browser, service, issuer):
    sign_in(browser, issuer)
    kept = browser.cookies["shisuan_session"]
    browser.post("/sign-out")
    assert browser.get("/").status_code == 401
    browser.cookies.set("shisuan_session", kept, domain="shisuan.example")
    assert browser.get("/").status_code == 200
    told = json.loads(base64.urlsafe_b64decode(kept.partition(".")[0]))
    assert service.clock.now < told["expires_ms"] <= service.clock.now + 2 * 3_600_000
    person = Person(subject="alice", tenant="studio-a", role=Role.TENANT)
    browser.cookies.set("shisuan_session", sessions(service).of(person, service.clock.now), domain="shisuan.example")
    assert "has expired: sign in again" in browser.get("/").text
    body, _, signature = kept.partition(".")
    browser.cookies.set("shisuan_session", f"{body[:-4]}AAAA.{signature}", domain="shisuan.example")
    assert "not one of this service" in browser.get("/").text


def test_a_sign_in_is_no_key_for_the_api_and_what_the_browser_takes_along_is_no_sign_in(browser, service, issuer):
    leave(browser)
    browser.cookies.set("shisuan_session", browser.cookies["shisuan_leaving"], domain="shisuan.example")
    assert "this is no sign-in" in browser.get("/").text
    sign_in(browser, issuer)
    assert service.get("/jobs", browser.cookies["shisuan_session"]).status_code == 401


@pytest.mark.parametrize("back", ["https://evil.test", "//evil.test", "/\\evil.test", "javascript:alert(1)"])
def test_signing_in_leads_nowhere_else(browser, issuer, back):
    answer = sign_in(browser, issuer, back)
    assert (answer.status_code, words(answer)) == (303, None)
    assert answer.headers["location"] == "/"
