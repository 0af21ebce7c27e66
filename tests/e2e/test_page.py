"""The status page in a real browser: it looks alive, speaks both languages, and asks nobody else for anything."""

import pytest

from tests.e2e import chromium
from tests.e2e.park import Park

pytestmark = pytest.mark.browser

if not chromium.find():
    pytest.skip("no Chromium here: bin/setup test installs it when run as root", allow_module_level=True)


@pytest.fixture(scope="module")
def park(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        made = Park(tmp_path_factory.mktemp("park"), patch)
        made.ids = made.play()
        yield made
        made.close()


@pytest.fixture(params=["en-US", "zh-CN"])
def browser(request, park, tmp_path):
    made = chromium.Chromium(tmp_path, language=request.param)
    made.language = request.param
    yield made
    made.close()


def sign_in(browser, park, path="/"):
    browser.open(park.url + path)
    browser.run(f"document.getElementById('key').value = {park.key!r}; document.querySelector('form.login').submit()")
    browser.until("document.getElementById('live') !== null && document.readyState === 'complete'")
    browser.console.clear()


def test_overview_shows_the_park(browser, park, tmp_path):
    sign_in(browser, park)
    text = browser.text()
    words = {
        "en-US": ["running", "SIMULATED", "Jobs", "H100-SXM-80GB", "训练-lora", "cancelled"],
        "zh-CN": ["运行中", "模拟", "作业", "H100-SXM-80GB", "训练-lora", "已取消"],
    }
    for word in words[browser.language]:
        assert word in text
    assert browser.run("document.querySelectorAll('.device.held').length") == 8
    assert browser.screenshot(tmp_path / "overview.png").stat().st_size > 20_000
    assert not browser.console


def test_job_page_shows_steps_squares_and_the_chart(browser, park):
    sign_in(browser, park, f"/jobs/{park.ids[0]}")
    squares = "document.querySelectorAll('.grid rect.%s').length"
    assert browser.run(squares % "succeeded") + browser.run(squares % "running") == 24
    assert browser.run("document.querySelectorAll('.gantt rect.failed').length") == 1
    # Classes, not inline styles, colour it: the policy must not have eaten them.
    fill = browser.run("getComputedStyle(document.querySelector('.grid rect.succeeded')).fill")
    assert fill != "rgb(0, 0, 0)"
    assert not browser.console


def test_a_waiting_job_says_why(browser, park):
    sign_in(browser, park, f"/jobs/{park.ids[4]}")
    assert "needs 4 cards" in browser.text()


def test_the_page_follows_the_park_by_itself(browser, park):
    sign_in(browser, park)
    count = browser.run("document.querySelectorAll('table.jobs tbody tr').length")
    caller = park.doors.operations.authenticate(park.key)
    park.submit(caller, 'apiVersion: shisuan/v1\nkind: CommandJob\nname: late\nrun: "true"\n')
    browser.until(f"document.querySelectorAll('table.jobs tbody tr').length > {count}")
    assert "late" in browser.text()


def test_hostile_names_run_nothing(browser, park):
    sign_in(browser, park)
    assert browser.run("document.querySelector('table.jobs td b[onclick]')") is None
    assert "<b onclick=alert(1)>dump" in browser.text()


def test_a_narrow_screen_does_not_scroll_sideways(browser, park, tmp_path):
    sign_in(browser, park, f"/jobs/{park.ids[0]}")
    browser.screenshot(tmp_path / "narrow.png", width=420)
    assert browser.run("document.documentElement.scrollWidth <= 420")
