"""PURE. Where: cluster view, hard fit with reasons, score, gangs."""
