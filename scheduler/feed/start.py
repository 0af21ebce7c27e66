"""The feed as the configuration file asks for it."""

from __future__ import annotations

from pathlib import Path

from scheduler.control.bootstrap import FeedConfig
from scheduler.control.delivery import Delivery
from scheduler.control.feed import Feed
from scheduler.control.ports import Clock, Outbox
from scheduler.control.settings import Home
from scheduler.feed.signing import KeyFile


def open_feed(
    config: FeedConfig | None, folder: Path, home: Home, outbox: Outbox, clock: Clock
) -> tuple[Feed, Delivery | None]:
    """The feed, for receivers that fetch, and its delivery where one is configured; the latter is not running yet.

    A relative ``key_file`` starts at ``folder``. Raises InvalidInput for a key that cannot be used.
    """
    given = folder / config.key_file if config and config.key_file else None
    feed = Feed(outbox, KeyFile(given or home.feed_key, may_make=given is None), clock)
    if config is None:
        return feed, None
    from scheduler.feed.http import HttpPost  # only for those who deliver: it takes memory

    feed.key()  # a key that cannot be used is the start's trouble, not the first delivery's
    return feed, Delivery(feed, HttpPost(config.url), clock, url=config.url, hint=home.feed_cursor)
