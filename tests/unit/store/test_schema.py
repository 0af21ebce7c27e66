"""The schema: migrations and tables agree, strangers' databases are refused."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from scheduler.model.errors import StoreError
from scheduler.store import SqlStore, migrate, migration_sql, open_store, schema, tables
from scheduler.store.database import Database


def test_head_is_the_newest_revision():
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def other_type(context, _, __, found, wanted):
    """True when the two spell differently, the collation included."""
    return found.compile(context.dialect) != wanted.compile(context.dialect)


def test_migrations_build_what_the_tables_say(store_url):
    store = open_store(store_url)
    with store._database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": other_type, "compare_server_default": True}
        )
        assert compare_metadata(context, tables.metadata) == []
        names = set(sa.inspect(connection).get_table_names())
    assert names == set(tables.metadata.tables) | {"alembic_version"}
    store.close()


def looks(store: SqlStore, wanted: sa.Select) -> list[str]:
    """What SQLite looks at for that, in its words."""
    with store._database.read() as connection:
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {wanted.compile(compile_kwargs={'literal_binds': True})}"
        )
        return [row[-1] for row in plan]


def test_the_ledgers_terms_are_found_by_their_index(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'terms.db'}")
    wanted = sa.select(tables.journal).where(tables.TERM_ROWS, tables.journal.c.seq <= 9).order_by(tables.journal.c.seq)
    steps = looks(store, wanted)
    assert len(steps) == 1, steps
    assert "ix_journal_terms" in steps[0]
    store.close()


def test_of_the_outbox_only_what_is_new_is_read(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'outbox.db'}")
    outbox = tables.outbox.c
    steps = looks(store, sa.select(tables.outbox).where(outbox.seq > 9).order_by(outbox.seq).limit(7))
    assert len(steps) == 2, steps
    assert steps[0].startswith("SEARCH usage USING COVERING INDEX")
    assert steps[1].startswith("SEARCH journal USING INTEGER PRIMARY KEY")
    store.close()


def test_there_is_no_float_in_the_schema():
    kinds = {type(column.type) for table in tables.metadata.tables.values() for column in table.columns}
    assert kinds == {tables.Plain, tables.Json, sa.Text, sa.BigInteger, sa.LargeBinary}


def test_a_database_from_the_future_is_refused_untouched(store_url):
    store = open_store(store_url)
    with store._database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"another shisuan wrote this database: its schema is '9999', this one knows"):
        open_store(store_url)
    store.close()


def test_several_processes_may_open_a_new_database_at_once(store_url):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(open_store, [store_url] * 4))
    assert sorted(store.acquire_epoch("x") for store in stores) == [1, 2, 3, 4]
    assert len({store.token_secret() for store in stores}) == 1
    for store in stores:
        store.close()


def test_a_new_file_that_somebody_writes_is_waited_for(tmp_path):
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.3, other.execute, ["COMMIT"])
        ends.start()
        open_store(f"sqlite:///{path}").close()
        ends.join()


@contextmanager
def as_it_was(url: str, revision: str) -> Iterator[sa.Connection]:
    """A new database with an earlier schema."""
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    with closing(Database(url)) as database, database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        yield connection


def test_keys_of_before_there_was_a_third_role_stay(store_url):
    with as_it_was(store_url, "0003") as connection:
        row = "'k1', 'default', 'operator', 'abc', '\"\"', 1, 2, 3"
        connection.execute(sa.text(f"INSERT INTO api_keys VALUES ({row})"))
    store = open_store(store_url)
    before = store.list_keys()
    assert [(key.id, key.role, key.expires_ms) for key in before] == [("k1", "operator", 2)]
    _, secret = store.add_key("default", "figures")
    assert store.find_key(secret, 5).role == "figures"
    with pytest.raises(StoreError), store._database.write() as connection:
        connection.execute(sa.text("UPDATE api_keys SET role = 'king'"))
    store.close()


def test_an_outbox_that_was_a_table_says_the_same_as_a_view(store_url):
    """The journal's first row seals a usage record, the second seals it again, the third another."""
    bodies = [f'{{"at_ms":5,"record":{{"id":"l{n}"}}}}' for n in (1, 1, 2)]
    told = [(1, "UsageSealed", 1, bodies[0]), (3, "UsageSealed", 1, bodies[2])]
    journal = sa.text("INSERT INTO journal VALUES (:seq, 5, 'UsageSealed', 1, :body, :hash, :hash)")
    usage = sa.text("INSERT INTO usage VALUES (:id, :seq, 'l', 'j', 't', 'free', 1, 2, :body)")
    outbox = sa.text("INSERT INTO outbox VALUES (:seq, :kind, :version, :body)")
    with as_it_was(store_url, "0005") as connection:
        for seq, body in enumerate(bodies, 1):
            connection.execute(journal, {"seq": seq, "body": body, "hash": b"h"})
        for seq, kind, version, body in told:
            connection.execute(usage, {"id": f"u{seq}", "seq": seq, "body": body})
            connection.execute(outbox, {"seq": seq, "kind": kind, "version": version, "body": body})
    store = open_store(store_url)
    if not store._database.is_sqlite:  # the service of before, which goes on until its successor is there
        with store._database.write() as connection:
            connection.execute(outbox, {"seq": 4, "kind": "UsageSealed", "version": 1, "body": "{}"})
    assert [(row.seq, row.kind, row.version, row.body) for row in store.outbox_rows(0, 10)] == told
    assert store.outbox_backlog(1) == 1
    store.close()


def test_migrating_twice_is_harmless(store_url):
    assert migrate(store_url) == migrate(store_url) == schema.HEAD


@pytest.mark.parametrize("url", ["sqlite:///{}/nothing.db", "postgresql+psycopg://nobody@localhost/none"])
def test_the_script_for_an_administrator_touches_no_database(url, tmp_path):
    text = migration_sql(url.format(tmp_path))
    assert "CREATE TABLE journal" in text
    assert text.count("append-only") >= 1
    assert ("STRICT" in text) == url.startswith("sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://localhost/x", "unsupported database 'mysql'"),
        ("oracle+nosuch://x", "not a database URL|unsupported database"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:////proc/nowhere/x.db", "cannot create the database"),
        ("postgresql://nobody@127.0.0.1:1/none", "database: .*(refused|failed)"),
    ],
)
def test_a_useless_url_is_one_clear_error(url, message):
    with pytest.raises(StoreError, match=message):
        open_store(url)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path):
    (tmp_path / "x.db").write_text("this is a letter to my mother" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        open_store(f"sqlite:///{tmp_path / 'x.db'}")


def test_only_its_owner_reads_the_database(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    store.acquire_epoch("me")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3
    store.close()


def test_opening_a_finished_database_does_not_load_alembic(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    open_store(url).close()
    code = (
        "import sys; from scheduler.store import open_store; open_store(sys.argv[1]); print('alembic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code, url], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
