"""SHELL. SQLAlchemy tables, the append-only journal, the outbox."""
