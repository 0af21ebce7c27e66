"""PURE. How much: usage records and their conservation."""
