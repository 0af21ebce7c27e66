"""The frame of what people write in the configuration file: nothing unknown is let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

UNKNOWN_FIELD = "unknown_field"
"""Our own kind of validation error; its context has the ``name`` and what is ``valid``."""


class Strict(BaseModel):
    """Refuses the first field that it does not know, with the ones there are."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def known_fields(cls, data: Any) -> Any:
        """Runs before anything else is read."""
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in data if isinstance(data, Mapping) else ():
            if name not in known:
                facts = {"name": str(name), "valid": sorted(known)}
                raise PydanticCustomError(UNKNOWN_FIELD, "unknown field {name}", facts)
        return data
