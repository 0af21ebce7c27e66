"""PURE. The real engine over time without a cluster: scenarios in, what would have happened out."""
