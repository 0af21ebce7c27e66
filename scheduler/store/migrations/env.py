"""Alembic's entry: uses the connection (and transaction) that scheduler.store.schema hands over."""

from __future__ import annotations

from alembic import context

from scheduler.store.tables import metadata

if context.is_offline_mode():
    url = context.config.attributes["url"]
    context.configure(url=url, target_metadata=metadata, literal_binds=True, transactional_ddl=True)
else:
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True
    )
with context.begin_transaction():
    context.run_migrations()
