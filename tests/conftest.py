"""Fixtures shared by suites."""

from itertools import count
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.objects_server import Bucket, serving
from tests.postgres import NoPostgres, Postgres


def pytest_configure(config):
    """The suite and the soak say the same twice in a row; ``make fuzz`` looks for what nobody has seen yet."""
    settings.register_profile("repeatable", derandomize=True)
    settings.load_profile(config.getoption("--hypothesis-profile") or "repeatable")
    drop_stale_kernels()


def drop_stale_kernels():
    """Numba looks only at a kernel's own file: one whose callee in another file has changed would run as it was."""
    placement = Path(__file__).parents[1] / "scheduler" / "placement"
    newest = max(path.stat().st_mtime for path in placement.glob("*.py"))
    for kept in placement.glob("__pycache__/*.nb[ic]"):
        if kept.stat().st_mtime < newest:
            kept.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL, one per test run; ``new_database()`` gives a URL."""
    try:
        server = Postgres()
    except NoPostgres as reason:
        pytest.skip(str(reason))
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server):
    """URL of a fresh, empty PostgreSQL database."""
    return postgres_server.new_database()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request, tmp_path):
    """URL of a fresh, empty database: once on SQLite, once on PostgreSQL."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'shisuan.db'}"


@pytest.fixture(scope="session", autouse=True)
def plain_logs():
    """The library's default draws tracebacks with every local variable, which takes seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(key_order=["event"])]
    )


_buckets = count(1)


@pytest.fixture(scope="session")
def objects_server():
    """An S3-compatible server, one per test run."""
    with serving() as server:
        yield server


@pytest.fixture
def s3_env(objects_server, monkeypatch):
    """The environment of an agent that uses the server."""
    for name, value in objects_server.env.items():
        monkeypatch.setenv(name, value)
    return objects_server


@pytest.fixture
def bucket(s3_env):
    """A fresh, empty bucket."""
    from workers.objects import connect

    return Bucket(connect(), f"park-{next(_buckets)}")
