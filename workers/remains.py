"""What agents left on a node's disk, read without an agent."""

from __future__ import annotations

from pathlib import Path

from scheduler.model.errors import NotFound
from scheduler.model.order import LogChunk
from workers.decoding import decode_part
from workers.site import attempt_name


def tenants_with_news(home: Path, node: str) -> tuple[str, ...]:
    """Tenants whose attempt table on this node may hold something untold: more than the head line."""
    tables = sorted((home / "nodes" / node).glob("*/table.log"))
    return tuple(path.parent.name for path in tables if path.read_bytes().count(b"\n") > 1)


def read_kept_log(  # noqa: PLR0917 (as the port has them)
    home: Path, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0
) -> LogChunk:
    """The log of an attempt that no agent answers for. Raises NotFound."""
    try:
        name = attempt_name(attempt_id, rank)
    except ValueError:
        raise NotFound(f"no attempt {attempt_id!r}") from None
    for path in sorted((home / "nodes" / node).glob(f"*/logs/{name}.log")):
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
        text, used = decode_part(data)
        return LogChunk(text=text, next_offset=offset + used, end=used == len(data) < limit)
    raise NotFound(f"no log of attempt {attempt_id!r} on node {node!r}")
