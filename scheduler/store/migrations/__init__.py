"""Schema changes, in order. Run by scheduler.store.schema; a released one is never edited."""
