"""The disaster drill of the guide: back up while the service runs, lose everything, restore, verify, go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from scheduler import wiring
from tests.unit.api.test_process import HELLO, Process, events

SKIP = "UPDATE meta SET next_job = next_job + 100000, next_lease = next_lease + 10000000, epoch = epoch + 1000"
"""Numbers given after the backup lie in outputs, logs and receivers: they must not be given again."""
VACUUM = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"


class SqliteDatabase:
    """The file in the home folder."""

    def __init__(self, tmp_path):
        self.url = f"sqlite:///{tmp_path / 'shisuan.db'}"
        self._file, self._copy = tmp_path / "shisuan.db", tmp_path / "copy.db"

    def back_up(self):
        subprocess.run([sys.executable, "-c", VACUUM, self._file, self._copy], check=True)

    def lose(self):
        for file in self._file.parent.glob("shisuan.db*"):
            file.unlink()

    def restore(self):
        self._copy.rename(self._file)


class PostgresDatabase:
    """A database of a real server, with the server's own programs."""

    def __init__(self, tmp_path, server):
        self._server, self._dump = server, tmp_path / "shisuan.dump"
        self.url = server.new_database()

    def _run(self, program, *arguments):
        url = sa.make_url(self.url).set(drivername="postgresql").render_as_string()
        command = [self._server.program(program), f"--dbname={url}", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def back_up(self):
        self._run("pg_dump", "--format=custom", f"--file={self._dump}")

    def lose(self):
        """Whatever was in it is gone with its server; another one has an empty database."""
        self.url = self._server.new_database()

    def restore(self):
        self._run("pg_restore", "--exit-on-error", "--no-owner", self._dump)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request, tmp_path):
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path)
    return PostgresDatabase(tmp_path, request.getfixturevalue("postgres_server"))


@pytest.mark.parametrize("guide", ["kubernetes.md", "kubernetes.zh-CN.md"])
def test_the_guide_has_the_statements_of_this_drill(guide):
    text = (Path(__file__).parents[3] / "docs" / guide).read_text("utf-8")
    assert f"{SKIP};" in text
    assert f'"{VACUUM}"' in text
    assert "pg_dump --format=custom" in text
    assert "pg_restore --exit-on-error --no-owner" in text


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def verify(home, database):
    command = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(home), "--verify"]
    environment = {**os.environ, "SHISUAN_DATABASE_URL": database.url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def start(database, home):
    """Start a service on the database, wherever it is now; none outlives the test."""
    made = []

    def one():
        made.append(Process(home, "--database", database.url))
        return made[-1]

    yield one
    for each in made:
        each.child.kill()
        each.child.wait()


def test_what_was_backed_up_is_there_again_verified_and_goes_on(database, home, start):
    first = start()
    client = first.client()
    kept = client.post("/jobs", json={"file": HELLO}).json()["id"]
    assert events(client, kept)[-1]["state"] == "succeeded"
    database.back_up()
    later = client.post("/jobs", json={"file": HELLO}).json()["id"]
    assert events(client, later)[-1]["state"] == "succeeded"
    first.child.send_signal(signal.SIGKILL)
    first.end(by_signal=False)
    database.lose()

    database.restore()
    assert verify(home, database) == f"{wiring.VERIFIED}\n"
    engine = sa.create_engine(database.url)
    with engine.begin() as connection:
        connection.execute(sa.text(SKIP))
    engine.dispose()
    second = start()
    client = second.client()
    assert client.get(f"/jobs/{kept}").json()["state"] == "succeeded"
    assert client.get(f"/jobs/{later}").status_code == 404  # recorded after the backup: it never happened
    again = client.post("/jobs", json={"file": HELLO}).json()["id"]
    assert (later, again) == ("j2", "j100002")
    assert events(client, again)[-1]["state"] == "succeeded"
    assert second.end()[0] == 0
    assert verify(home, database) == f"{wiring.VERIFIED}\n"
