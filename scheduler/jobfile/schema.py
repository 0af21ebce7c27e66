"""JSON Schema (2020-12) of job files, for editors.

Point ``# yaml-language-server: $schema=FILE`` at what ``shisuan schema`` prints.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from scheduler.jobfile.kinds import JobFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema, as a new dict."""
    made = _plain(TypeAdapter(JobFile).json_schema())
    assert isinstance(made, dict)
    # An editor picks the branch by `kind` only if exactly one can match.
    made["oneOf"] = made.pop("anyOf")
    return {"$schema": DIALECT, "title": "shisuan job file", **made}


def _plain(node: Any) -> Any:
    """Without what only pydantic cares for: generated titles, null branches (a field without a value is left out)."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _plain(item) for name, item in node.items() if not (name == "title" and isinstance(item, str))}
    kept.pop("x-default", None)
    if kept.get("default", ...) is None:
        del kept["default"]
    branches = kept.get("anyOf")
    if isinstance(branches, list) and {"type": "null"} in branches:
        left = [branch for branch in branches if branch != {"type": "null"}]
        if len(left) == 1:
            del kept["anyOf"]
            kept = {**left[0], **kept}
        else:
            kept["anyOf"] = left
    return kept
