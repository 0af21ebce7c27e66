"""PURE. When: life cycles, order, fair share."""
