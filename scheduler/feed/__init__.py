"""Adapters of the feed: the signing key and the HTTP sender."""
