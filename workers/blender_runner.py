# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (C) 2026 the shisuan authors
#
# This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
# License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
# version. It comes WITHOUT ANY WARRANTY. The licence is in LICENSES/GPL-3.0-or-later.txt.
"""A resident Blender: one JSON request per line on stdin, one answer per request on stdout.

It uses Blender's Python API, so it is licensed like Blender. Nothing of shisuan imports this file and it imports
nothing of shisuan: they talk through pipes. It runs in a Python that has ``bpy`` (``python blender_runner.py``) or in
Blender (``blender -b --factory-startup --disable-autoexec -P blender_runner.py --``).

``pipelines/render.py`` documents the requests. A request ends with exactly one ``shisuan_done: {json}`` or
``shisuan_fail: reason``; the process lives on after either and exits when stdin closes. A frame's result is::

    {"op": "frame", "frame": 7, "width": 320, "height": 180, "samples": 16, "engine": "CYCLES", "device": "cpu",
     "devices": [], "ms": {"open": 0, "sync": 12, "render": 1830, "write": 70}, "black": false, "warnings": [],
     "resident": true, "peak_rss_mib": 890, "rss_mib": 870, "blender": "4.5.15 LTS"}

``ms.open`` is the time to read the .blend, ``sync`` from the render's begin to its first sample, ``render`` from there
to the last pixel, ``write`` both files with their check. ``resident`` says that the file was open already.
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # neighbours of this file must not hide other people's modules

import contextlib
import ctypes
import json
import os
import re
import resource
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

bpy: Any = None
"""Set by :func:`main`, after stdout is guarded."""

CARD_KINDS = ("OPTIX", "CUDA")
"""Cycles' device kinds for NVIDIA cards, best first."""
_SAMPLE = re.compile(r"(?:Rendered (\d+)/(\d+) Tiles, )?Sample (\d+)/(\d+)")
PIXEL_STATS_LIMIT = 64_000_000
"""Frames with more pixels are not read back for the NaN check: it would double a worker's memory."""


class Refused(Exception):
    """The request cannot be done; the text is a sentence for the job's owner."""


class Protocol:
    """The only writer of protocol lines. Python's and Blender's own output goes to stderr."""

    def __init__(self) -> None:
        self._requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self._answers = os.dup(1)
        os.dup2(2, 1)  # Blender prints to descriptor 1
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        _line_buffer_c_stdout()

    def requests(self) -> Iterator[str]:
        """Lines of stdin until it closes."""
        return iter(self._requests)

    def say(self, word: str, text: str) -> None:
        """One protocol line in one write; the newline first, so that no unfinished line of a log swallows it."""
        lead = "\n" if word in ("done", "fail") else ""
        data = f"{lead}shisuan_{word}: {' '.join(text.split())}\n".encode()
        sys.stdout.flush()
        sys.stderr.flush()
        while data:
            data = data[os.write(self._answers, data) :]


def _line_buffer_c_stdout() -> None:
    """Blender's log lines appear when they are printed: C buffers 4 KiB when stdout is a pipe."""
    libc = ctypes.CDLL(None)
    stdout = ctypes.c_void_p.in_dll(libc, "stdout")
    libc.setvbuf(stdout, None, 1, 0)  # 1 is _IOLBF in glibc and musl


class Stats:
    """Follows Cycles through its status lines: when sampling began, how far it is."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._told = -1
        self.samples = 0
        self.first_sample_s = 0.0

    def begin(self) -> None:
        """A new frame starts."""
        self._told, self.samples, self.first_sample_s = -1, 0, 0.0
        self.tell(0)

    def tell(self, percent: int) -> None:
        """Report progress where it changed."""
        if percent > self._told:
            self._told = percent
            self._protocol.say("progress", str(percent))

    def on_line(self, line: object, *_: object) -> None:
        """Handler of ``render_stats``; a line ends with ``| Sample 3/16`` or ``| Rendered 1/4 Tiles, Sample 3/16``."""
        match = _SAMPLE.search(line) if isinstance(line, str) else None
        if match is None:
            return
        tile, tiles, done, total = (int(group or default) for group, default in zip(match.groups(), (0, 1, 0, 1), strict=True))
        if self.samples == 0:
            self.samples, self.first_sample_s = total, time.monotonic()
        self.tell(min(99, 100 * (tile * total + done) // max(1, tiles * total)))


class Runner:
    """What stays between requests: the open .blend and the device chosen."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._stats = Stats(protocol)
        self._opened: dict[str, object] = {}
        """The open .blend, then the files it needs, with what tells a changed file."""
        self._own: _Own | None = None
        self._warnings: list[str] = []

    def serve(self, line: str) -> None:
        """Do one request and answer it."""
        try:
            request = json.loads(line)
            if request["op"] not in ("frame", "scene"):
                raise Refused(f"unknown op {request['op']!r} (valid: frame, scene)")
            result = self.frame(request) if request["op"] == "frame" else self.scene(request)
        except Refused as refusal:
            self._protocol.say("fail", str(refusal))
        except (KeyError, TypeError, ValueError) as error:
            traceback.print_exc()
            self._protocol.say("fail", f"the request cannot be read: {type(error).__name__}: {error}")
        except (RuntimeError, OSError, MemoryError) as error:
            traceback.print_exc()
            self._opened = {}  # Blender's state is uncertain after an error of its own
            self._protocol.say("fail", f"Blender: {_one_line(error)}")
        else:
            self._protocol.say("done", json.dumps(result, separators=(",", ":"), sort_keys=True))

    def scene(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a scene script in an empty file and save the .blend."""
        script, save = str(request["script"]), str(request["save"])
        source = _read_script(script)
        self._opened = {}
        began = time.monotonic()
        bpy.ops.wm.read_factory_settings(use_empty=True)
        _run_script(source, script, int(request["seed"]), dict(request["args"]))
        if bpy.context.scene.camera is None:
            raise Refused(f"{Path(script).name} made no camera: set scene.camera in build()")
        built = time.monotonic()
        with _published(Path(save)) as temporary:
            bpy.ops.wm.save_as_mainfile(filepath=temporary, check_existing=False, copy=True, compress=True)
        scene = bpy.context.scene
        return {
            "op": "scene",
            "seed": int(request["seed"]),
            "objects": len(scene.objects),
            "frame_start": scene.frame_start,
            "frame_end": scene.frame_end,
            "bytes": Path(save).stat().st_size,
            "ms": {"build": _ms(began, built), "write": _ms(built, time.monotonic())},
            **_facts(),
        }

    def frame(self, request: dict[str, Any]) -> dict[str, Any]:
        """Render one frame to an EXR and a PNG preview."""
        began = time.monotonic()
        self._warnings = []
        resident = self._open(str(request["blend"]))
        opened = time.monotonic()
        scene = bpy.context.scene
        assert self._own is not None
        device, names = _settings(scene, self._own, request)
        frame = int(request["frame"])
        scene.frame_set(frame)
        if scene.camera is None:
            raise Refused(f"{Path(request['blend']).name} has no camera: set the scene's active camera and save")
        self._stats.begin()
        started = time.monotonic()
        if "FINISHED" not in bpy.ops.render.render(write_still=False):
            raise Refused(f"Blender stopped the render of frame {frame}")
        rendered = time.monotonic()
        black = self._write(scene, request)
        first_sample = self._stats.first_sample_s or rendered
        render = scene.render
        result = {
            "op": "frame",
            "frame": frame,
            "width": render.resolution_x * render.resolution_percentage // 100,
            "height": render.resolution_y * render.resolution_percentage // 100,
            "samples": self._stats.samples or scene.cycles.samples,
            "engine": render.engine,
            "device": device,
            "devices": names,
            "ms": {
                "open": _ms(began, opened),
                "sync": _ms(started, first_sample),
                "render": _ms(first_sample, rendered),
                "write": _ms(rendered, time.monotonic()),
            },
            "black": black,
            "warnings": self._warnings,
            "resident": resident,
            **_facts(),
        }
        self._stats.tell(100)
        return result

    def _open(self, path: str) -> bool:
        """Open the .blend unless it, and all files it needs, are as they were when it was opened. True when they were."""
        identity = _identity(path)
        if identity is None:
            raise Refused(f"cannot read the .blend {path}: it is not there or may not be read")
        if self._opened and self._opened == {name: _identity(name) for name in (path, *self._opened)}:
            return True
        self._opened = {}
        _check_magic(path)
        try:
            bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
        except RuntimeError as error:
            raise Refused(f"Blender cannot open {Path(path).name}: {_one_line(error)}") from error
        needed = _needed_files()
        missing = [f"{label} ({file})" for label, file in needed if _identity(file) is None]
        if missing:
            more = f", and {len(missing) - 10} more" if len(missing) > 10 else ""
            files = ", ".join(missing[:10])
            raise Refused(f"{Path(path).name} needs files that are not there or may not be read: {files}{more}")
        if bpy.app.autoexec_fail:
            self._warn(f"Python inside the .blend was not run ({bpy.app.autoexec_fail_message})")
        bpy.app.handlers.render_stats.append(self._stats.on_line)
        self._own = _Own(bpy.context.scene)
        self._opened = {path: identity, **{file: _identity(file) for _, file in needed}}
        return False

    def _write(self, scene: Any, request: dict[str, Any]) -> bool:
        """Write both files under temporary names, check the pixels, then name them. True for a black frame."""
        exr, png = Path(request["out"], request["exr"]), Path(request["out"], request["png"])
        image = bpy.data.images["Render Result"]
        alpha = "RGBA" if scene.render.film_transparent else "RGB"
        with _published(exr) as exr_temporary, _published(png) as png_temporary, _image_settings(scene) as settings:
            settings.file_format, settings.color_mode = "OPEN_EXR", alpha
            settings.color_depth, settings.exr_codec = "32", "ZIP"
            image.save_render(exr_temporary, scene=scene)
            black = self._check_pixels(exr_temporary, int(request["frame"]))
            settings.file_format, settings.color_mode = "PNG", alpha
            settings.color_depth, settings.compression = "8", 15
            image.save_render(png_temporary, scene=scene)
        return black

    def _check_pixels(self, path: str, frame: int) -> bool:
        """Raise Refused for a frame with NaN or infinity; True when it is entirely black."""
        import numpy

        image = bpy.data.images.load(path)
        try:
            width, height = image.size
            if not width * height:
                raise Refused(f"frame {frame} came out empty")
            if width * height > PIXEL_STATS_LIMIT:
                self._warn(f"frame {frame} is too large for the check of its pixels")
                return False
            image.colorspace_settings.name = "Non-Color"
            pixels = numpy.empty(width * height * image.channels, dtype=numpy.float32)
            image.pixels.foreach_get(pixels)
        finally:
            bpy.data.images.remove(image)
        bad = int(pixels.size - numpy.isfinite(pixels).sum())
        if bad:
            raise Refused(f"frame {frame} has {bad} values that are not numbers (NaN or infinity)")
        black = not pixels.reshape(height * width, -1)[:, :3].any()
        if black:
            self._warn(f"frame {frame} is entirely black")
        return black

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._protocol.say("status", text)


def _check_magic(path: str) -> None:
    """Blender's own message for a wrong file names neither the cause nor a way out. Magics: plain, gzip, zstd."""
    with Path(path).open("rb") as file:
        head = file.read(7)
    if not head.startswith((b"BLENDER", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        raise Refused(f"{Path(path).name} is not a .blend file, or it is damaged")


def _identity(path: str) -> object:
    """What changes when the file does; None when it cannot be read."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if os.access(path, os.R_OK) else None


def _needed_files() -> list[tuple[str, str]]:
    """Files outside the .blend that it uses: sorted ``(kind 'name', absolute path)``."""
    data = bpy.data
    kinds = (("library", data.libraries), ("font", data.fonts), ("volume", data.volumes), ("cache", data.cache_files),
             ("clip", data.movieclips), ("image", data.images))
    return sorted(
        (f"{kind} {block.name!r}", bpy.path.abspath(block.filepath, library=block.library))
        for kind, blocks in kinds
        for block in blocks
        if _is_needed(kind, block)
    )


def _is_needed(kind: str, block: Any) -> bool:
    if not block.filepath or block.filepath == "<builtin>" or getattr(block, "packed_file", None):
        return False
    if kind != "library" and not block.users:
        return False
    return kind != "image" or block.source in ("FILE", "MOVIE")  # the path of sequences and UDIM tiles is a pattern


class _Own:
    """The file's own settings, for requests that say "as in the file" after others that did not."""

    def __init__(self, scene: Any) -> None:
        render, cycles = scene.render, scene.cycles
        self.size = (render.resolution_x, render.resolution_y, render.resolution_percentage)
        self.samples, self.seed = cycles.samples, (cycles.seed, cycles.use_animated_seed)


def _settings(scene: Any, own: _Own, request: dict[str, Any]) -> tuple[str, list[str]]:
    """Put the request into the scene. Gives the device used (``cpu``, ``cuda``, ``optix``) and the cards' names."""
    if request["engine"] != "CYCLES":
        raise Refused(f"unknown engine {request['engine']!r} (valid: CYCLES)")
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    render.use_persistent_data = True
    render.use_file_extension = False
    render.threads_mode, render.threads = "FIXED", max(1, int(request["threads"]))
    width, height, seed = int(request["width"]), int(request["height"]), int(request["seed"])
    size = (width, height, 100) if width and height else own.size
    render.resolution_x, render.resolution_y, render.resolution_percentage = size
    cycles.samples = int(request["samples"]) or own.samples
    cycles.seed, cycles.use_animated_seed = (seed, False) if seed >= 0 else own.seed
    _mute_file_outputs(scene)
    return _device(scene, str(request["device"]))


def _mute_file_outputs(scene: Any) -> None:
    """The compositor's File Output nodes write wherever the file says: only declared outputs are published."""
    for node in scene.node_tree.nodes if scene.use_nodes and scene.node_tree else ():
        if node.type == "OUTPUT_FILE":
            node.mute = True


def _device(scene: Any, wanted: str) -> tuple[str, list[str]]:
    if wanted not in ("auto", "cpu", "cuda", "optix"):
        raise Refused(f"unknown device {wanted!r} (valid: auto, cpu, cuda, optix)")
    kinds = () if wanted == "cpu" else CARD_KINDS if wanted == "auto" else (wanted.upper(),)
    # "" hides all cards; asking the driver then would only cost time.
    for kind in kinds if os.environ.get("CUDA_VISIBLE_DEVICES") != "" else ():
        names = _use_cards(kind)
        if names:
            scene.cycles.device = "GPU"
            return kind.lower(), names
    if wanted in ("cuda", "optix"):
        raise Refused(f"no {wanted} device is visible to Blender on this node")
    scene.cycles.device = "CPU"
    return "cpu", []


def _use_cards(kind: str) -> list[str]:
    preferences = bpy.context.preferences.addons["cycles"].preferences
    try:
        preferences.compute_device_type = kind
    except TypeError:
        return []  # this build of Blender does not know the kind
    found = preferences.get_devices_for_type(kind)
    for device in found:
        device.use = device.type == kind
    return sorted(device.name for device in found if device.type == kind)


@contextlib.contextmanager
def _image_settings(scene: Any) -> Iterator[Any]:
    """The scene's output settings, put back afterwards: changing them must not look like an edit of the scene."""
    settings = scene.render.image_settings
    names = ("file_format", "color_mode", "color_depth")
    before = {name: getattr(settings, name) for name in names}
    try:
        yield settings
    finally:
        for name in names:
            setattr(settings, name, before[name])


@contextlib.contextmanager
def _published(path: Path) -> Iterator[str]:
    """A temporary name beside ``path``, flushed and renamed to it after the block, removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield str(temporary)
        if not temporary.exists() or not temporary.stat().st_size:
            raise Refused(f"Blender wrote nothing to {path.name}: is the disk full?")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_script(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"cannot read the scene script {path}: {error}") from error


def _run_script(source: str, path: str, seed: int, args: dict[str, Any]) -> None:
    """Call the script's ``build``. Its errors are its owner's, told with the line they come from."""
    names: dict[str, Any] = {"__name__": "shisuan_scene", "__file__": path}
    try:
        exec(compile(source, path, "exec"), names)  # noqa: S102 (running the owner's script, confined, is the request)
        build = names.get("build")
        if not callable(build):
            raise Refused(f"{Path(path).name} has no function build(seed, args)")
        build(seed, args)
    except Refused:
        raise
    except Exception as error:
        traceback.print_exc()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f" in line {lines[-1]}" if lines else ""
        raise Refused(f"{Path(path).name} failed{where}: {type(error).__name__}: {_one_line(error)}") from error


def _facts() -> dict[str, Any]:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "blender": bpy.app.version_string,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rss_mib": pages * resource.getpagesize() // (1024 * 1024),
    }


def _ms(start_s: float, end_s: float) -> int:
    return round((end_s - start_s) * 1000)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).removeprefix("Error: ").split())


def main() -> None:
    """Serve requests until stdin closes."""
    global bpy
    protocol = Protocol()
    try:
        import bpy as blender
    except ImportError as error:
        protocol.say("fail", f"this Python has no Blender (bpy): {error}")
        os._exit(1)
    bpy = blender
    runner = Runner(protocol)
    for line in protocol.requests():
        if line.strip():
            runner.serve(line)
    # Without Blender's own clean-up: bpy wheels hang in it after a render with persistent data.
    os._exit(0)


if __name__ == "__main__":
    main()
