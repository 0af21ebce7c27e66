"""PURE. Where and when together: from_snapshot, apply, plan."""
