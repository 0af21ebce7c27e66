"""Logs in a bucket: of an attempt whose node died, and of one whose pod was deleted after it."""

import pytest

from tests.e2e.kubernetes import Park
from tests.objects_server import KEYS, Bucket

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket", "namespace": "park"}, "stringData": KEYS}
JOB = """
apiVersion: shisuan/v1
kind: CommandJob
name: talks
resources: {cpus: 0.5, memory: 64MiB, accelerators: H100:1}
run: |
  echo "attempt $SHISUAN_ATTEMPT has begun"
  if [ "$SHISUAN_ATTEMPT" = 1 ]; then sleep 600; fi
  echo "and fails"
  exit 3
retries: 0
"""


@pytest.fixture
def park(tmp_path, s3_env):
    """Worker pods and the service are told of the bucket, each in its own way; heads are not."""
    config = "tenants: [{name: lab, roots: [s3://logs/lab]}]\nlogs: {limit: 1MiB, keep_days: 30}\n"
    made = Park(
        tmp_path / "park", config, s3={"endpoint": s3_env.url, "region": KEYS["AWS_REGION"], "secret": "bucket"}
    )
    made.kube.double.put(SECRET)
    with made:
        yield made


@pytest.fixture
def bucket(s3_env):
    from workers.objects import connect

    return Bucket(connect(), "logs")


def test_a_log_outlives_its_node_and_its_pod(bucket, park):
    job = park.submit_as("lab", JOB, base_dir="")

    def running(number):
        return [a["node"] for a in park.attempts(job) if a["state"] == "running" and a["number"] == number]

    def log(number):
        return park.api("GET", f"/jobs/{job}/logs", params={"task": "command.0", "attempt": number})

    (dies,) = park.until(lambda: running(1))
    park.until(lambda: log(1)["text"] == "attempt 1 has begun\n")
    park.until(lambda: bucket.texts("lab/.shisuan/logs/"))
    park.kube.lose_node(dies)
    park.until(lambda: log(1)["state"] == "lost")
    lost = log(1)
    assert (lost["text"], lost["end"]) == ("attempt 1 has begun\n", True)
    park.until(lambda: park.job(job)["state"] == "failed")
    last = max(a["number"] for a in park.attempts(job))
    whole = f"attempt {last} has begun\nand fails\n"
    assert log(last)["text"] == whole, "told before the end was"
    for pod in park.kube.pods():
        if pod["metadata"]["labels"].get("ray.io/node-type") == "worker":
            park.kube.double.remove("pods", pod["metadata"]["name"], "park")
    shown = park.run("logs", job)
    assert shown.stdout == whole
    assert f"==> {job}.command.0.a{last} failed: exit code 3 <==" in shown.stderr
    before = bucket.texts("lab/.shisuan/logs/")
    trial = park.run("prune", "--keep-days", "1", "--dry-run")
    assert "0 files" in trial.stdout
    assert bucket.texts("lab/.shisuan/logs/") == before
