"""A user's mistake gets one clear error that points at the field and lists what is valid; API and CLI say the same."""

import datetime as dt
from pathlib import Path

import httpx
import pytest

from benchmarks.installation import Installation, wait_for

pytestmark = pytest.mark.ray

HEAD = "apiVersion: shisuan/v1\nkind: {kind}\nname: bad\n"
COMMAND = HEAD.format(kind="CommandJob") + "run: [/bin/true]\n"
RENDER = HEAD.format(kind="RenderJob") + "frames: 1-2\nresolution: 64x36\noutputs: frames\n"
STEP = "  - {{name: {name}, kind: CommandJob, run: [/bin/true], needs: [{needs}]}}\n"
CYCLE = HEAD.format(kind="Pipeline") + "steps:\n" + STEP.format(name="a", needs="b") + STEP.format(name="b", needs="a")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# name -> (job file, words the message must hold)
CASES = {
    "unknown codec": (
        HEAD.format(kind="TranscodeJob") + "input: a.mp4\ncodec: vp9\noutputs: b.mp4\n",
        ["codec", "vp9", "h264"],
    ),
    "unknown field": (COMMAND + "retrys: 3\n", ["retrys", "'retries'"]),
    "unknown queue": (COMMAND + "queue: defalt\n", ["queue", "'defalt'", "'default'"]),
    "unknown card": (COMMAND + "resources: {accelerators: H1000:1}\n", ["resources.accelerators", "H1000", "H100"]),
    "zero cards": (COMMAND + "resources: {accelerators: H100:0}\n", ["resources.accelerators"]),
    "nine cards where nodes have eight": (COMMAND + "resources: {accelerators: H100:9}\n", ["accelerators", "9", "8"]),
    "path outside the roots": (RENDER + "scene: /etc/passwd\n", ["scene", "/etc/passwd", "storage"]),
    "output outside the roots": (COMMAND + "outputs: /tmp/elsewhere\n", ["outputs", "/tmp/elsewhere", "storage"]),
    "unknown licence": (COMMAND + "resources: {licences: {nuke: 1}}\n", ["resources.licences.nuke", "no licence"]),
    "unknown price band": (COMMAND + "band: valley\n", ["band", "'valley'"]),
    "unknown distance": (COMMAND + "together: island\n", ["together", "'island'", "anywhere, rack, node"]),
    "expected when": (COMMAND + "expected: soon\n", ["expected", "30m"]),
    "yaml bomb": (BOMB, ["job file", "50,000", "aliases"]),
    "not yaml": ("kind: [CommandJob\n", ["line"]),
    "cyclic dependency": (CYCLE, ["steps", "a", "b"]),
    "deadline gone by": (COMMAND + "deadline: 2020-01-01T00:00:00+08:00\n", ["deadline", "past"]),
    "deadline without a zone": (COMMAND + "deadline: 2099-01-01T00:00:00\n", ["deadline", "zone"]),
    "ten megabytes": (COMMAND + "# " + "x" * 10_000_000 + "\n", ["MiB"]),
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    with Installation(tmp_path_factory.mktemp("bad") / "home", "--cpus", "2", "--cards", "8xH100") as running:
        yield running


def post(installation: Installation, text: str, *, key: str = "", folder: Path = Path("/")) -> httpx.Response:
    key = key or (installation.home / "key").read_text(encoding="utf-8").strip()
    return httpx.post(
        f"{installation.instance['url']}/v1/jobs",
        json={"file": text, "base_dir": str(folder)},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )


@pytest.mark.parametrize("case", sorted(CASES))
def test_same_clear_text_from_api_and_cli_and_nothing_stored(installation, case, tmp_path):
    text, words = CASES[case]
    before = len(installation.api("GET", "/jobs")["jobs"])
    response = post(installation, text, folder=tmp_path)
    assert 400 <= response.status_code < 500, response.text[:500]
    message = response.json()["error"]["message"]
    print(f"{case}: {message}")
    assert not [word for word in words if word not in message]
    assert len(message) < 4_000
    file = tmp_path / "job.yaml"
    file.write_text(text, encoding="utf-8")
    done = installation.run("submit", str(file), check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.removeprefix("error:").split() == message.split()  # several mistakes are indented, one a line
    assert len(installation.api("GET", "/jobs")["jobs"]) == before


def test_wrong_revoked_and_expired_keys_are_told_apart(installation):
    def refused(key: str) -> str:
        def answer() -> httpx.Response | None:
            response = post(installation, COMMAND, key=key)
            return response if response.status_code == 401 else None

        return wait_for("a refusal", answer, deadline_s=10).json()["error"]["message"]

    def made(expires_ms: int) -> dict[str, str]:
        body = {"tenant": "default", "role": "tenant", "expires_ms": expires_ms}
        return installation.api("POST", "/keys", json=body)

    lasting = made(0)
    assert post(installation, COMMAND, key=lasting["key"]).status_code == 201
    installation.api("DELETE", f"/keys/{lasting['id']}")
    brief = made(int((dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).timestamp() * 1000))
    texts = [refused("sk-nonsense"), refused(lasting["key"]), refused(brief["key"])]
    assert "unknown" in texts[0]
    assert "revoked" in texts[1]
    assert "expired" in texts[2]


def test_good_file_is_accepted_after_all_that(installation):
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
    response = post(installation, COMMAND + f"deadline: {later}\n")
    assert response.status_code == 201
    assert installation.wait(response.json()["id"])["state"] == "succeeded"
