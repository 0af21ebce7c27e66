# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (C) 2026 the shisuan authors
# Free software without any warranty, under the GNU General Public License: LICENSES/GPL-3.0-or-later.txt
"""A resident Blender: one JSON request per line on stdin (documented in ``pipelines/render.py``), one answer on stdout.

It uses Blender's Python API, so it is licensed like Blender. Nothing of shisuan imports this file and it imports
nothing of shisuan: they talk through pipes. It runs in a Python that has ``bpy`` (``python blender_runner.py``) or in
Blender (``blender -b --factory-startup --disable-autoexec -P blender_runner.py --``). A request ends with exactly one
``shisuan_done: {json}`` or ``shisuan_fail: reason``; the process lives on after either and exits when stdin closes::

    {"op": "frame", "frame": 7, "width": 320, "height": 180, "samples": 16, "engine": "CYCLES", "device": "cpu",
     "devices": [], "ms": {"open": 0, "sync": 12, "render": 1830, "write": 70}, "black": false, "warnings": [],
     "resident": true, "peak_rss_mib": 890, "blender": "4.5.15 LTS"}

``ms.open`` reads the .blend, ``sync`` lasts until the first sample, ``render`` until the last pixel, ``write`` covers
both files and their check. ``resident``: the file was open already.
"""

from __future__ import annotations

import sys

if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
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

bpy: Any = None  # set by main, after stdout is guarded
BLACK = 1e-4  # linear; a third of an 8-bit step: the denoiser leaves traces on a black frame
_SAMPLE = re.compile(r"(?:Rendered (\d+)/(\d+) Tiles, )?Sample (\d+)/(\d+)")


class Refused(Exception):
    """The request cannot be done; the text is a sentence for the job's owner."""


class Protocol:
    """The only writer of protocol lines. Python's and Blender's own output goes to stderr."""

    def __init__(self) -> None:
        self.requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
        """Lines of stdin until it closes."""
        self._answers = os.dup(1)
        os.dup2(2, 1)  # Blender prints to descriptor 1
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        libc = ctypes.CDLL(None)
        # Log lines appear when they are printed: C buffers 4 KiB when stdout is a pipe. 1 is _IOLBF in glibc and musl.
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)

    def say(self, word: str, text: str) -> None:
        """One protocol line in one write; the newline first, so that no unfinished line of a log swallows it."""
        lead = "\n" if word in ("done", "fail") else ""
        data = f"{lead}shisuan_{word}: {' '.join(text.split())}\n".encode()
        sys.stdout.flush()
        sys.stderr.flush()
        while data:
            data = data[os.write(self._answers, data) :]


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
        tile, tiles, done, total = (int(number) for number in match.groups(default="0"))
        if self.samples == 0:
            self.samples, self.first_sample_s = total, time.monotonic()
        self.tell(min(99, 100 * (tile * total + done) // max(1, (tiles or 1) * total)))


class Runner:
    """What stays between requests: the open .blend and the device chosen."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._stats = Stats(protocol)
        self._opened: dict[str, object] = {}
        """The open .blend, then the files it needs, with what tells a changed file."""
        self._own: tuple[Any, ...] = ()
        """The file's own size, samples and seed: a request for them may follow one for others."""
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
        except Exception as error:  # noqa: BLE001 (a resident answers every request; the log has the trace)
            traceback.print_exc()
            self._opened = {}  # Blender's state is uncertain
            self._protocol.say("fail", f"Blender runner: {type(error).__name__}: {error}")
        else:
            self._protocol.say("done", json.dumps(result, separators=(",", ":"), sort_keys=True))

    def scene(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a scene script in an empty file and save the .blend."""
        script, save = str(request["script"]), str(request["save"])
        began, self._opened = time.monotonic(), {}
        bpy.ops.wm.read_factory_settings(use_empty=True)
        _run_script(script, int(request["seed"]), dict(request["args"]))
        scene = bpy.context.scene
        if scene.camera is None:
            raise Refused(f"{Path(script).name} made no camera: set scene.camera in build()")
        built = time.monotonic()
        with _published(Path(save)) as temporary:
            bpy.ops.wm.save_as_mainfile(filepath=temporary, check_existing=False, copy=True, compress=True)
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
        began, self._warnings = time.monotonic(), []
        resident = self._open(str(request["blend"]))
        opened = time.monotonic()
        scene = bpy.context.scene
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
        self._stats.tell(100)
        first_sample = self._stats.first_sample_s or rendered
        times = {
            "open": _ms(began, opened),
            "sync": _ms(started, first_sample),
            "render": _ms(first_sample, rendered),
            "write": _ms(rendered, time.monotonic()),
        }
        percent = scene.render.resolution_percentage
        return {
            "op": "frame",
            "frame": frame,
            "samples": self._stats.samples or scene.cycles.samples,
            "width": scene.render.resolution_x * percent // 100,
            "height": scene.render.resolution_y * percent // 100,
            "engine": scene.render.engine,
            "device": device,
            "devices": names,
            "ms": times,
            "black": black,
            "warnings": self._warnings,
            "resident": resident,
            **_facts(),
        }

    def _open(self, path: str) -> bool:
        """Open the .blend unless it and all files it needs are as they were when it was opened. True when they are."""
        identity = _identity(path)
        if identity is None:
            raise Refused(f"cannot read the .blend {path}: it is not there or may not be read")
        if self._opened and self._opened == {name: _identity(name) for name in (path, *self._opened)}:
            return True
        self._opened = {}
        try:
            bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
        except RuntimeError as error:
            raise Refused(f"Blender cannot open {Path(path).name}: {str(error).removeprefix('Error: ')}") from error
        needed = _needed_files()
        missing = [f"{label} ({file})" for label, file in needed if _identity(file) is None]
        if missing:
            files = ", ".join(missing[:10]) + (" and more" if len(missing) > 10 else "")
            raise Refused(f"{Path(path).name} needs files that are not there or may not be read: {files}")
        if bpy.app.autoexec_fail:
            self._warn(f"Python inside the .blend was not run ({bpy.app.autoexec_fail_message})")
        if _mute_file_outputs(bpy.context.scene):
            self._warn("the compositor's File Output nodes were left out: they write where no output is collected")
        bpy.app.handlers.render_stats.append(self._stats.on_line)
        render, cycles = bpy.context.scene.render, bpy.context.scene.cycles
        size = (render.resolution_x, render.resolution_y, render.resolution_percentage)
        self._own = (size, cycles.samples, (cycles.seed, cycles.use_animated_seed))
        self._opened = {path: identity, **{file: _identity(file) for _, file in needed}}
        return False

    def _write(self, scene: Any, request: dict[str, Any]) -> bool:
        """Write both files under temporary names, check the pixels, then name them. True for a black frame."""
        exr, png = Path(request["out"], request["exr"]), Path(request["out"], request["png"])
        image = bpy.data.images["Render Result"]
        alpha = "RGBA" if scene.render.film_transparent else "RGB"
        settings = scene.render.image_settings
        with _published(exr) as exr_temporary, _published(png) as png_temporary:
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
            image.colorspace_settings.name = "Non-Color"
            pixels = numpy.empty(width * height * image.channels, dtype=numpy.float32)
            image.pixels.foreach_get(pixels)
        finally:
            bpy.data.images.remove(image)
        bad = int(pixels.size - numpy.isfinite(pixels).sum())
        if bad:
            raise Refused(f"frame {frame} has {bad} values that are not numbers (NaN or infinity)")
        black = pixels.reshape(height * width, -1)[:, :3].max() < BLACK
        if black:
            self._warn(f"frame {frame} is entirely black")
        return bool(black)

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._protocol.say("status", text)


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
    kinds = (
        ("library", data.libraries),
        ("font", data.fonts),
        ("volume", data.volumes),
        ("cache", data.cache_files),
        ("clip", data.movieclips),
        ("image", data.images),
    )
    return sorted(
        (f"{kind} {block.name!r}", bpy.path.abspath(block.filepath, library=block.library))
        for kind, blocks in kinds
        for block in blocks
        if _is_needed(kind, block)
    )


def _is_needed(kind: str, block: Any) -> bool:
    is_outside = block.filepath and block.filepath != "<builtin>" and not getattr(block, "packed_file", None)
    if not is_outside or (kind != "library" and not block.users):
        return False
    return kind != "image" or block.source in ("FILE", "MOVIE")  # the path of sequences and UDIM tiles is a pattern


def _settings(scene: Any, own: tuple[Any, ...], request: dict[str, Any]) -> tuple[str, list[str]]:
    """Put the request into the scene. Gives the device used (``cpu``, ``cuda``, ``optix``) and the cards' names."""
    if request["engine"] != "CYCLES":
        raise Refused(f"unknown engine {request['engine']!r} (valid: CYCLES)")
    (own_size, own_samples, own_seed), render, cycles = own, scene.render, scene.cycles
    render.engine = "CYCLES"
    render.use_persistent_data = True
    render.use_file_extension = False
    render.threads_mode, render.threads = "FIXED", max(1, int(request["threads"]))
    width, height, seed = int(request["width"]), int(request["height"]), int(request["seed"])
    size = (width, height, 100) if width and height else own_size
    render.resolution_x, render.resolution_y, render.resolution_percentage = size
    cycles.samples = int(request["samples"]) or own_samples
    cycles.seed, cycles.use_animated_seed = (seed, False) if seed >= 0 else own_seed
    return _device(scene, str(request["device"]))


def _mute_file_outputs(scene: Any) -> bool:
    """True when there were any."""
    tree = getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)
    outputs = [node for node in tree.nodes if node.type == "OUTPUT_FILE"] if tree else []
    for node in outputs:
        node.mute = True  # they write wherever the file says; only declared outputs are published
    return bool(outputs)


def _device(scene: Any, wanted: str) -> tuple[str, list[str]]:
    kinds = () if wanted == "cpu" else ("OPTIX", "CUDA") if wanted == "auto" else (wanted.upper(),)
    # "" hides all cards; asking the driver then would only cost time.
    for kind in kinds if os.environ.get("CUDA_VISIBLE_DEVICES") != "" else ():
        names = _use_cards(kind)
        if names:
            scene.cycles.device = "GPU"
            return kind.lower(), names
    if wanted not in ("auto", "cpu"):
        raise Refused(f"no {wanted} device is visible to Blender on this node (valid: auto, cpu, cuda, optix)")
    scene.cycles.device = "CPU"
    return "cpu", []


def _use_cards(kind: str) -> list[str]:
    """Switch these cards on; gives their names, none when Blender sees no such card."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    with contextlib.suppress(TypeError):  # this build of Blender may not know the kind
        preferences.compute_device_type = kind
        found = preferences.get_devices_for_type(kind)
        for device in found:
            device.use = device.type == kind
        return sorted(device.name for device in found if device.type == kind)
    return []


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


def _run_script(path: str, seed: int, args: dict[str, Any]) -> None:
    """Call the script's ``build``. Its errors are its owner's, told with the line they come from."""
    name = Path(path).name
    names: dict[str, Any] = {"__name__": "shisuan_scene", "__file__": path}
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"cannot read the scene script {path}: {error}") from error
    try:
        exec(compile(source, path, "exec"), names)  # noqa: S102 (running the owner's script, confined, is the request)
        names["build"](seed, args)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f" in line {lines[-1]}" if lines else ""
        if "build" not in names and isinstance(error, KeyError):
            raise Refused(f"{name} has no function build(seed, args)") from error
        raise Refused(f"{name} failed{where}: {type(error).__name__}: {error}") from error


def _facts() -> dict[str, Any]:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"blender": bpy.app.version_string, "peak_rss_mib": peak_kib // 1024}


def _ms(start_s: float, end_s: float) -> int:
    return round((end_s - start_s) * 1000)


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
    code = 1
    try:
        runner = Runner(protocol)
        for line in filter(str.strip, protocol.requests):
            runner.serve(line)
        code = 0
    except OSError:
        traceback.print_exc()  # nobody reads our answers any more
    finally:
        # Without Blender's own clean-up: the bpy wheel hangs in it after a render with persistent data.
        os._exit(code)


if __name__ == "__main__":
    main()
