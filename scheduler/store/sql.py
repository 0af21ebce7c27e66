"""The store itself: fits ``scheduler.control.ports.Store`` and adds the reads of the faces."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from scheduler.model.event import Event
from scheduler.model.snapshot import Changes
from scheduler.store import tables
from scheduler.store.database import Database
from scheduler.store.keys import Keys
from scheduler.store.ledger import Ledger
from scheduler.store.reads import Reads
from scheduler.store.schema import prepare
from scheduler.store.write import Writer


class SqlStore(Reads, Keys, Ledger):
    """The only truth, in SQLite or PostgreSQL. Reads may come from any thread; commits from one at a time."""

    def __init__(self, database: Database) -> None:
        Reads.__init__(self, database)
        Keys.__init__(self, database)
        Ledger.__init__(self, database)
        self._writer = Writer(database)

    def acquire_epoch(self, owner: str) -> int:
        """Become the writer. A commit under an earlier epoch, even one already begun elsewhere, fails from now on."""
        meta = tables.meta
        taken = sa.update(meta).values(epoch=meta.c.epoch + 1, owner=owner).returning(meta.c.epoch)
        self._writer.forget()
        with self._database.seize(meta) as connection:
            epoch: int = connection.execute(taken).scalar_one()
        return epoch

    def epoch(self) -> int:
        """The latest writer's."""
        with self._database.read() as connection:
            epoch: int = connection.scalars(sa.select(tables.meta.c.epoch)).one()
        return epoch

    def commit(self, epoch: int, events: Sequence[Event], changes: Changes) -> int:
        """See :meth:`scheduler.store.write.Writer.commit`."""
        return self._writer.commit(epoch, events, changes)

    def token_secret(self) -> bytes:
        """32 random bytes made with the database; they sign attempts' tokens."""
        with self._database.read() as connection:
            secret: bytes = connection.scalars(sa.select(tables.meta.c.token_secret)).one()
        return secret

    def close(self) -> None:
        """Close every connection. Harmless twice."""
        self._database.close()


def open_store(url: str) -> SqlStore:
    """The store at ``sqlite:////path/file`` or ``postgresql+psycopg://…``, migrated to this program's schema.

    Raises StoreError when the URL makes no sense, the database is unreachable or a newer shisuan wrote it.
    """
    database = Database(url)
    try:
        prepare(database)
    except BaseException:
        database.close()
        raise
    return SqlStore(database)
