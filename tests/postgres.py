"""A real PostgreSQL for tests: Debian's server or the pgserver wheel's, in its own folder, on a unix socket only."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

ACCOUNT = "nobody"
"""PostgreSQL refuses to run as root; this is who it runs as then."""


class NoPostgres(Exception):
    """Why there is none here."""


class Postgres:
    """A running server. ``durable`` keeps fsync on (benchmarks); tests kill clients, never the server."""

    def __init__(self, *, durable: bool = False) -> None:
        # Not pytest's folder: that one is closed to the account the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="shisuan-pg-"))
        self._numbers = count(1)
        self._as = _other_account()
        try:
            self._bin = _programs(self.folder, self._as)
            self._begin(durable)
        except (NoPostgres, subprocess.CalledProcessError) as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise NoPostgres(f"{error} {getattr(error, 'stderr', '')}".strip()) from error

    def _begin(self, durable: bool) -> None:
        data = self.folder / "data"
        data.mkdir()
        if self._as:
            account = pwd.getpwnam(ACCOUNT)
            for path in (self.folder, data):
                os.chown(path, account.pw_uid, account.pw_gid)
        _run(self._as, self._bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        unsafe = "" if durable else "-c fsync=off -c full_page_writes=off"
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=200 {unsafe}"
        # -l keeps the server's output out of the pipes, which would otherwise never close.
        log = self.folder / "log"
        _run(self._as, self._bin / "pg_ctl", "-D", data, "-w", "-t", "60", "-l", log, "-o", options, "start")

    def new_database(self) -> str:
        """URL of a fresh, empty database."""
        name = f"t{next(self._numbers)}"
        admin = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self._url(name)

    def program(self, name: str) -> Path:
        """One of the server's own programs, such as ``pg_dump``."""
        return self._bin / name

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder), safe='')}"

    def close(self) -> None:
        """Stop the server and remove everything."""
        _run(self._as, self._bin / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def _other_account() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        raise NoPostgres("PostgreSQL does not run as root and there is no setpriv to become somebody else")
    return ("setpriv", f"--reuid={ACCOUNT}", f"--regid={pwd.getpwnam(ACCOUNT).pw_gid}", "--clear-groups")


def _run(account: Sequence[str], *argv: str | Path) -> None:
    subprocess.run([*account, *map(str, argv)], check=True, capture_output=True, text=True, cwd="/")


def _programs(folder: Path, account: Sequence[str]) -> Path:
    for find in (_debian, _wheel):
        found = find(folder)
        if found is None:
            continue
        works = subprocess.run(
            [*account, str(found / "initdb"), "--version"], check=False, capture_output=True, cwd="/"
        )
        if works.returncode == 0:
            return found
    raise NoPostgres("no PostgreSQL server: install Debian's postgresql or the pgserver wheel")


def _debian(_: Path) -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3].split(".")[0]))
    return versions[-1].parent if versions else None


def _wheel(folder: Path) -> Path | None:
    spec = importlib.util.find_spec("pgserver")
    if spec is None or spec.origin is None:
        return None
    installed = Path(spec.origin).parent / "pginstall"
    if os.geteuid() != 0:
        return installed / "bin"
    # The environment may lie where the other account cannot go; programs find their libraries two folders up.
    folder.chmod(0o755)
    shutil.copytree(installed.parents[1] / "pgserver.libs", folder / "pgserver.libs")
    return Path(shutil.copytree(installed, folder / "pgserver" / "pginstall", symlinks=True)) / "bin"
