"""Field types: each turns YAML's value into a plain quantity and tells editors, in JSON Schema, what may be written."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from pipelines.media import FrameRange, parse_rate, rate_text
from pipelines.render import DEPTHS, DEVICES, ENGINES, PASSES, PNG_BITS
from pipelines.transcode import BITS, CODECS, COLORS, CONTAINERS, ENCODERS, PRESETS, SOUNDS
from scheduler.jobfile import quantity
from scheduler.jobfile.quantity import Array, Cards, Deadline, Malformed, shown
from scheduler.model import job as model

STEP_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
JOB_ID = re.compile(r"j[1-9][0-9]{0,17}", re.ASCII)
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
FEATURE = re.compile(r"[a-z0-9][a-z0-9:._-]{0,63}", re.ASCII)
MAX_NAME = 80
MAX_PATH = 4_000
MAX_ARGUMENT_BYTES = 131_071
"""Linux: MAX_ARG_STRLEN is 32 pages, with the closing NUL (execve(2))."""
RESERVED_ENV = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")

Json = dict[str, Any]


def _reading(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``parse`` as pydantic wants it: Malformed becomes an error that keeps its choices."""

    def read(value: Any) -> Any:
        try:
            return parse(value)
        except Malformed as error:
            facts = {"text": str(error), "choices": error.choices, "nearest": error.nearest}
            raise PydanticCustomError("malformed", "{text}", facts) from None

    return read


def _typed(parse: Callable[[Any], Any], schema: Json) -> tuple[PlainValidator, WithJsonSchema]:
    return PlainValidator(_reading(parse)), WithJsonSchema(schema)


def choice(what: str, valid: tuple[str, ...]) -> Callable[[Any], str]:
    """A name among ``valid``, whatever its case."""

    def read(value: Any) -> str:
        by_lower = {name.lower(): name for name in valid}
        if isinstance(value, str) and value.lower() in by_lower:
            return by_lower[value.lower()]
        if not isinstance(value, str):
            raise Malformed(f"must be a {what}, got {shown(value)}", valid)
        close = get_close_matches(value.lower(), list(by_lower), n=1)
        raise Malformed(f"unknown {what} {shown(value)}", valid, by_lower[close[0]] if close else "")

    return read


def text(value: Any) -> str:
    """Any text but the empty one."""
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"must be text, got {shown(value)}")
    return value


def _job_name(value: Any) -> str:
    name = text(value).strip()
    if len(name) > MAX_NAME or "/" in name or not name.isprintable():
        raise Malformed(f"must be at most {MAX_NAME} printable characters without '/', got {shown(value)}")
    return name


def _step_name(value: Any) -> str:
    if not isinstance(value, str) or STEP_NAME.fullmatch(value) is None:
        form = "1 to 40 of a-z, 0-9 and '-', with a letter or digit at both ends"
        raise Malformed(f"must be {form}, got {shown(value)}")
    return value


def _job_id(value: Any) -> str:
    if not isinstance(value, str) or JOB_ID.fullmatch(value) is None:
        raise Malformed(f"must be a job id such as j17, got {shown(value)}")
    return value


def _feature(value: Any) -> str:
    if not isinstance(value, str) or FEATURE.fullmatch(value) is None:
        raise Malformed(f"must be a card feature such as nvenc:h264 or rt, got {shown(value)}")
    return value


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Malformed(f"must be a mapping of names to texts, got {shown(value)}")
    return {_env_name(name): _env_value(name, item) for name, item in value.items()}


def _env_name(name: str) -> str:
    if ENV_NAME.fullmatch(name) is None:
        raise Malformed(f"{shown(name)} is not a variable name (letters, digits and '_', no digit first)")
    if name.startswith("SHISUAN_") or name in RESERVED_ENV:
        raise Malformed(f"{name} is set by shisuan itself")
    return name


def _env_value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise Malformed(f"{name} must be text, got {shown(value)}")
    found = str(value)
    if len(found.encode()) + len(name) + 1 > MAX_ARGUMENT_BYTES:
        raise Malformed(f"{name} is longer than the {MAX_ARGUMENT_BYTES} bytes Linux takes for one variable")
    return found


def _module(value: Any) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise Malformed(f"must be a module name such as torchtune.train, got {shown(value)}")
    return value


def _arguments(value: Any) -> list[str]:
    words = value if isinstance(value, list) else None
    if words is None or any(isinstance(word, bool) or not isinstance(word, str | int | float) for word in words):
        raise Malformed(f"must be a list of texts and numbers, got {shown(value)}")
    texts = [str(word) for word in words]
    if any(len(word.encode()) > MAX_ARGUMENT_BYTES for word in texts):
        raise Malformed(f"has a text longer than the {MAX_ARGUMENT_BYTES} bytes Linux takes for one argument")
    return texts


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str | int) for item in value.values()):
        raise Malformed(f"must be a mapping of label names to texts, got {shown(value)}")
    return {text(name): _env_value(name, item) for name, item in value.items()}


def _run(value: Any) -> str | list[str]:
    words = value if isinstance(value, list) else [value]
    if any(isinstance(word, bool) or not isinstance(word, str | int) for word in words):
        raise Malformed(f"must be a shell text or a list of texts, got {shown(value)}")
    texts = [str(word) for word in words]
    if not texts or not texts[0].strip():
        raise Malformed("is empty: say what to run")
    if any(len(word.encode()) > MAX_ARGUMENT_BYTES for word in texts):
        raise Malformed(f"has a text longer than the {MAX_ARGUMENT_BYTES} bytes Linux takes for one argument")
    return texts if isinstance(value, list) else texts[0]


def path(value: Any) -> str:
    """A path as written; roots and references are checked later, with the tenant known."""
    found = text(value).strip()
    if len(found.encode()) > MAX_PATH:
        raise Malformed(f"is longer than {MAX_PATH} bytes")
    if not found.isprintable():
        raise Malformed(f"holds a character that cannot be printed: {shown(value)}")
    return found


def _seats(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise Malformed(f"must be a mapping of licences to seats such as {{nuke: 1}}, got {shown(value)}")
    return {text(name): _whole(f"a number of seats of {name}", 1, 1_000)(seats) for name, seats in value.items()}


def _output_file(value: Any) -> str:
    found = path(value)
    parts = PurePosixPath(found).parts
    if found.startswith("/") or ".." in parts or not parts or found.endswith("/"):
        raise Malformed(f"must be a file name below the outputs folder, got {shown(value)}")
    return str(PurePosixPath(found))


def _film(value: Any) -> str:
    found = path(value)
    if PurePosixPath(found).suffix.lower() not in CONTAINERS:
        raise Malformed(f"must be a file that ends in one of these, got {shown(value)}", CONTAINERS)
    return found


def _rate(value: Any) -> str:
    try:
        return rate_text(parse_rate(str(value)))
    except ValueError as error:
        raise Malformed(str(error)) from None


def _png(value: Any) -> str:
    # YAML 1.1 readers give False for `off`; ours gives the text.
    return choice("PNG depth", PNG)("off" if value is False else str(value) if type(value) is int else value)


def _bits(value: Any) -> int:
    if isinstance(value, bool) or value not in BITS:
        raise Malformed(f"must be a number of bits, got {shown(value)}", tuple(str(bits) for bits in BITS))
    return int(value)


def _whole(what: str, least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Malformed(f"must be {what} from {least} to {most}, got {shown(value)}")
        return value

    return read


def _count(what: str, least: int, most: int) -> tuple[PlainValidator, WithJsonSchema]:
    return _typed(_whole(what, least, most), {"type": "integer", "minimum": least, "maximum": most})


TOGETHER = tuple(together.value for together in model.Together)
PNG = (*map(str, PNG_BITS), "off")
_ENGINES = tuple(name.lower() for name in ENGINES)
_TEXT: Json = {"type": "string", "minLength": 1}
_NUMBER_OR_TEXT: Json = {"type": ["integer", "number", "string"]}
_RANGES: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": ["integer", "string"]}},
    ]
}
_ARRAY: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 1},
                "max_parallel": {"type": "integer", "minimum": 0},
            },
            "required": ["count"],
            "additionalProperties": False,
        },
    ]
}
_CARDS: Json = {
    "anyOf": [
        {"type": ["string", "number"]},
        {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["string", "number"]}},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}},
    ]
}
_SIZE: Json = {
    "anyOf": [
        {"type": "array", "items": {"type": "integer", "minimum": 4, "maximum": 65_536}, "minItems": 2, "maxItems": 2},
        {"type": "string", "pattern": r"^\d+\s*[xX×]\s*\d+$"},
    ]
}
_TILES: Json = {
    "anyOf": [
        {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 64}, "minItems": 2, "maxItems": 2},
        {"type": "string", "pattern": r"^\d+\s*[xX×]\s*\d+$"},
    ]
}
_PRIORITY: Json = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"enum": list(quantity.PRIORITIES)}],
}
_ENV: Json = {
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_LABELS: Json = {"type": "object", "additionalProperties": {"type": ["string", "integer", "boolean"]}}
_SEATS: Json = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 1_000},
}
_RUN: Json = {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}}]}

_ARGUMENTS: Json = {"type": "array", "items": {"type": ["string", "number"]}}

JobName = Annotated[str, *_typed(_job_name, {**_TEXT, "maxLength": MAX_NAME})]
StepName = Annotated[str, *_typed(_step_name, {"type": "string", "pattern": f"^{STEP_NAME.pattern}$"})]
JobId = Annotated[str, *_typed(_job_id, {"type": "string", "pattern": f"^{JOB_ID.pattern}$"})]
Text = Annotated[str, *_typed(text, _TEXT)]
Path = Annotated[str, *_typed(path, _TEXT)]
OutputFile = Annotated[str, *_typed(_output_file, _TEXT)]
FilmFile = Annotated[str, *_typed(_film, {"type": "string", "pattern": r"\.(mp4|mov|mkv|MP4|MOV|MKV)$"})]
Priority = Annotated[int, *_typed(quantity.priority, _PRIORITY)]
When = Annotated[Deadline, *_typed(quantity.deadline, _TEXT)]
Duration = Annotated[int, *_typed(quantity.duration_ms, {"type": ["integer", "string"]})]
Backoff = Annotated[int, *_typed(quantity.backoff_ms, {"type": ["integer", "string"]})]
BackoffMax = Annotated[int, *_typed(quantity.backoff_max_ms, {"type": ["integer", "string"]})]
CpuMilli = Annotated[int, *_typed(quantity.cpu_milli, _NUMBER_OR_TEXT)]
MemoryMib = Annotated[int, *_typed(quantity.memory_mib, _NUMBER_OR_TEXT)]
Accelerators = Annotated[Cards, *_typed(quantity.cards, _CARDS)]
Feature = Annotated[str, *_typed(_feature, {"type": "string", "pattern": f"^{FEATURE.pattern}$"})]
Environment = Annotated[dict[str, str], *_typed(_env, _ENV)]
Labels = Annotated[dict[str, str], *_typed(_labels, _LABELS)]
Seats = Annotated[dict[str, int], *_typed(_seats, _SEATS)]
Together = Annotated[str, *_typed(choice("distance", TOGETHER), {"enum": list(TOGETHER)})]
Run = Annotated[str | list[str], *_typed(_run, _RUN)]
Arguments = Annotated[list[str], *_typed(_arguments, _ARGUMENTS)]
ModuleName = Annotated[str, *_typed(_module, {"type": "string", "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*$"})]
ArrayField = Annotated[Array, *_typed(quantity.array, _ARRAY)]
Frames = Annotated[FrameRange, *_typed(quantity.frames, _RANGES)]
Resolution = Annotated[tuple[int, int], *_typed(quantity.resolution, _SIZE)]
Rate = Annotated[str, *_typed(_rate, _NUMBER_OR_TEXT)]
Engine = Annotated[str, *_typed(choice("engine", _ENGINES), {"enum": list(_ENGINES)})]
Device = Annotated[str, *_typed(choice("device", DEVICES), {"enum": list(DEVICES)})]
Tiles = Annotated[tuple[int, int], *_typed(quantity.tiles, _TILES)]
Slices = Annotated[int, *_count("a whole number", 1, 1_024)]
Chunk = Annotated[int, *_count("a whole number", 1, 10_000)]
Passes = Annotated[str, *_typed(choice("choice of passes", PASSES), {"enum": list(PASSES)})]
Depth = Annotated[str, *_typed(choice("depth", DEPTHS), {"enum": list(DEPTHS)})]
Png = Annotated[str, *_typed(_png, {"enum": [*PNG_BITS, *PNG]})]
Codec = Annotated[str, *_typed(choice("codec", CODECS), {"enum": list(CODECS)})]
Bits = Annotated[int, *_typed(_bits, {"enum": list(BITS)})]
Color = Annotated[str, *_typed(choice("color", COLORS), {"enum": list(COLORS)})]
Encoder = Annotated[str, *_typed(choice("encoder", ENCODERS), {"enum": list(ENCODERS)})]
Sound = Annotated[str, *_typed(choice("audio", SOUNDS), {"enum": list(SOUNDS)})]
Preset = Annotated[str, *_typed(choice("preset", PRESETS), {"enum": list(PRESETS)})]
Retries = Annotated[int, *_count("a whole number", 0, 100)]
Nodes = Annotated[int, *_count("a whole number", 1, 1_024)]
Processes = Annotated[int, *_count("a whole number", 1, 256)]
Parallel = Annotated[int, *_count("a whole number", 1, 1_000_000)]
Samples = Annotated[int, *_count("a whole number", 1, 16_777_216)]
Threads = Annotated[int, *_count("a whole number", 1, 64)]
Chunks = Annotated[int, *_count("a whole number", 2, 9_999)]
ChunkFrames = Annotated[int, *_count("a whole number", 1, 1_000_000)]
Crf = Annotated[int, *_count("a whole number", 0, 51)]
# Blender and Python's seeded generators both take 31 bits without surprise.
Seed = Annotated[int, *_count("a whole number", 0, 2_147_483_647)]


class _OneOrMore:
    """One text where a list is meant is a list of one, as in GitHub's and SkyPilot's files."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Wraps a lone text before the list is validated."""
        return core_schema.no_info_before_validator_function(
            lambda value: [value] if isinstance(value, str) else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """Either spelling."""
        listed = handler(core)
        return {"anyOf": [listed["items"], listed]}


OneOrMore = _OneOrMore()
