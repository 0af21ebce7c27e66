"""The only truth: an append-only journal and its projections, in SQLite or PostgreSQL."""

from scheduler.store.schema import migrate, migration_sql
from scheduler.store.sql import SqlStore, open_store

__all__ = ["SqlStore", "migrate", "migration_sql", "open_store"]
