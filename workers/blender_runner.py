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
the files and their check. ``resident``: the file was open already. Of a tile the same is written, with what the
merge has to know, into a JSON file beside the EXR.
"""

from __future__ import annotations

import sys

if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # neighbours of this file must not hide other people's modules

import contextlib
import ctypes
import hashlib
import json
import os
import re
import resource
import struct
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

bpy: Any = None  # set by main, after stdout is guarded
LEAST_THREADS = 2
"""With one, TBB keeps a second one spinning: measured, half the speed for the same CPU time."""
BLACK = 1e-4  # linear; a third of an 8-bit step: the denoiser leaves traces on a black frame
_MATTES = ("object", "material", "asset")
_PASSING_NODES = ("R_LAYERS", "COMPOSITE", "VIEWER", "OUTPUT_FILE", "GROUP_OUTPUT", "REROUTE", "FRAME")
"""Kinds of compositor nodes that hand a picture on as it is."""
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
        self._own: dict[str, Any] = {}
        """The file's own settings that requests change: a request for them may follow one for others."""
        self._warnings: list[str] = []

    def serve(self, line: str) -> None:
        """Do one request and answer it."""
        try:
            request = json.loads(line)
            doing = {"frame": self.frame, "tile": self.tile, "scene": self.scene}.get(request["op"])
            if doing is None:
                raise Refused(f"unknown op {request['op']!r} (valid: frame, scene, tile)")
            result = doing(request)
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
            "triangles": _triangles(),
            "frame_start": scene.frame_start,
            "frame_end": scene.frame_end,
            "bytes": Path(save).stat().st_size,
            "ms": {"build": _ms(began, built), "write": _ms(built, time.monotonic())},
            **_facts(),
        }

    def frame(self, request: dict[str, Any]) -> dict[str, Any]:
        """Render one frame to an EXR and, unless it is off, a PNG."""
        return self._render(request)

    def tile(self, request: dict[str, Any]) -> dict[str, Any]:
        """Render a window of a frame, or a share of its samples, to an EXR, and write down what the merge must know."""
        result = self._render({**request, "png": ""})
        scene = bpy.context.scene
        layers = [layer for layer in scene.view_layers if layer.use]
        note = {
            **result,
            "full": [scene.render.resolution_x, scene.render.resolution_y],
            "layers": [layer.name for layer in layers],
            "denoise": self._denoises(scene, request),
            "guides": [name for name, stored in self._own["stored"].items() if stored],
            "alpha": scene.render.film_transparent,
            "color": _color(scene),
            "sha256": hashlib.sha256(Path(request["out"], request["exr"]).read_bytes()).hexdigest(),
        }
        with _published(Path(request["out"], request["note"])) as temporary:
            Path(temporary).write_text(json.dumps(note, sort_keys=True), encoding="utf-8")
        return result

    def _render(self, request: dict[str, Any]) -> dict[str, Any]:
        began, self._warnings = time.monotonic(), []
        resident = self._open(str(request["blend"]))
        opened = time.monotonic()
        scene = bpy.context.scene
        device, names = self._settings(scene, request)
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
        window = _window(scene, request)
        return {
            "op": request["op"],
            "frame": frame,
            "samples": int(request.get("length", 0)) or scene.cycles.samples,
            "width": window[2] - window[0],
            "height": window[3] - window[1],
            **({"window": window, "offset": int(request["offset"])} if request["op"] == "tile" else {}),
            "engine": scene.render.engine,
            "device": device,
            "devices": names,
            "ms": times,
            "black": black,
            "warnings": self._warnings,
            "resident": resident,
            **_facts(),
        }

    def _settings(self, scene: Any, request: dict[str, Any]) -> tuple[str, list[str]]:
        """Put the request into the scene. Gives the device used (``cpu``, ``cuda``, ``optix``) and the cards' names."""
        if request["engine"] != "CYCLES":
            raise Refused(f"unknown engine {request['engine']!r} (valid: CYCLES)")
        own, render, cycles = self._own, scene.render, scene.cycles
        # Blender throws the prepared scene away when some of these are set, even to what they were.
        _put(render, engine="CYCLES", use_persistent_data=True, use_file_extension=False)
        _put(render, threads_mode="FIXED", threads=max(LEAST_THREADS, int(request["threads"])))
        width, height, seed = int(request["width"]), int(request["height"]), int(request["seed"])
        size = (width, height, 100) if width and height else own["size"]
        render.resolution_x, render.resolution_y, render.resolution_percentage = size
        cycles.samples = int(request["samples"]) or own["samples"]
        cycles.seed, cycles.use_animated_seed = (seed, False) if seed >= 0 else own["seed"]
        cycles.use_adaptive_sampling, cycles.time_limit = own["adaptive"], own["time_limit"]
        cycles.use_sample_subset, cycles.sample_offset, cycles.sample_subset_length = own["subset"]
        render.use_border, render.use_crop_to_border, *border = own["border"]
        render.use_compositing, render.use_sequencer = own["post"]
        denoise = self._denoises(scene, request)
        is_tile = request["op"] == "tile"
        cycles.use_denoising = denoise and not is_tile
        for layer in scene.view_layers:
            layer.cycles.denoising_store_passes = own["stored"][layer.name] or (is_tile and denoise)
        if is_tile:
            border = self._cut(scene, request)
        render.border_min_x, render.border_min_y, render.border_max_x, render.border_max_y = border
        return _device(scene, str(request["device"]))

    def _denoises(self, scene: Any, request: dict[str, Any]) -> bool:
        wanted = int(request.get("denoise", -1))
        return bool(self._own["denoise"] if wanted < 0 else wanted)

    def _cut(self, scene: Any, request: dict[str, Any]) -> list[float]:
        """Set the scene up for a piece; gives the border as shares of the frame, from its lower left corner."""
        render, cycles = scene.render, scene.cycles
        if _has_compositor(scene):
            raise Refused("the compositor needs the whole picture: render without tiles, or switch Compositing off")
        if render.use_sequencer and _has_strips(scene):
            raise Refused("the sequencer needs the whole picture: render without tiles, or switch Sequencer off")
        if render.use_multiview:
            raise Refused("stereo pictures cannot be rendered in tiles: render without tiles")
        render.use_compositing = render.use_sequencer = False
        if cycles.time_limit:
            cycles.time_limit = 0
            self._warn("the render's time limit was left out: all tiles take the same samples")
        length = int(request["length"])
        if length:
            if any(getattr(layer, f"use_pass_cryptomatte_{kind}") for layer in scene.view_layers for kind in _MATTES):
                raise Refused("Cryptomatte passes cannot be averaged: render without slices (tiles are exact)")
            if cycles.use_adaptive_sampling:
                cycles.use_adaptive_sampling = False
                self._warn("adaptive sampling was left out: every pixel takes all samples of its slices")
            cycles.use_sample_subset, cycles.sample_offset, cycles.sample_subset_length = (
                True,
                int(request["offset"]),
                length,
            )
        left, top, right, bottom = (int(request[side]) for side in ("left", "top", "right", "bottom"))
        render.use_border = render.use_crop_to_border = bool(right)
        if not right:
            return [0.0, 0.0, 1.0, 1.0]
        width, height = render.resolution_x, render.resolution_y
        # Blender cuts the product of share and size to whole pixels: a quarter more than the pixel's edge is safe.
        pixels = ((left, width), (height - bottom, height), (right, width), (height - top, height))
        return [min(1.0, (edge + 0.25) / size) for edge, size in pixels]

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
        self._own = _own_settings(bpy.context.scene)
        self._opened = {path: identity, **{file: _identity(file) for _, file in needed}}
        return False

    def _write(self, scene: Any, request: dict[str, Any]) -> bool:
        """Write the files under temporary names, check them, then name them. True for a black frame."""
        frame, folder = int(request["frame"]), Path(request["out"])
        picture = "RGBA" if scene.render.film_transparent else "RGB"
        is_tile = request["op"] == "tile"
        is_layered = is_tile or (request.get("passes", "all") == "all" and _has_passes(scene))
        depth = "16" if request.get("depth") == "half" else "32"
        with contextlib.ExitStack() as files:
            exr = files.enter_context(_published(folder / request["exr"]))
            _save(scene, exr, "OPEN_EXR_MULTILAYER" if is_layered else "OPEN_EXR", picture, depth)
            _check_exr(Path(exr), frame)
            flat = exr
            if is_layered:  # Blender itself cannot read pixels of a layered file back through its Python interface
                flat = f"{exr}.flat"
                files.callback(Path(flat).unlink, missing_ok=True)
                _save(scene, flat, "OPEN_EXR", picture, "16")
            black = self._check_pixels(flat, frame)
            if request["png"]:
                png = files.enter_context(_published(folder / request["png"]))
                _save(scene, png, "PNG", picture, str(request.get("bits", 8)))
                _check_png(Path(png), frame)
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


def _put(owner: Any, **values: Any) -> None:
    """Set only what differs."""
    for name, value in values.items():
        if getattr(owner, name) != value:
            setattr(owner, name, value)


def _own_settings(scene: Any) -> dict[str, Any]:
    render, cycles = scene.render, scene.cycles
    return {
        "size": (render.resolution_x, render.resolution_y, render.resolution_percentage),
        "samples": cycles.samples,
        "seed": (cycles.seed, cycles.use_animated_seed),
        "denoise": cycles.use_denoising,
        "stored": {layer.name: layer.cycles.denoising_store_passes for layer in scene.view_layers},
        "adaptive": cycles.use_adaptive_sampling,
        "time_limit": cycles.time_limit,
        "subset": (cycles.use_sample_subset, cycles.sample_offset, cycles.sample_subset_length),
        "border": (
            render.use_border,
            render.use_crop_to_border,
            render.border_min_x,
            render.border_min_y,
            render.border_max_x,
            render.border_max_y,
        ),
        "post": (render.use_compositing, render.use_sequencer),
    }


def _window(scene: Any, request: dict[str, Any]) -> list[int]:
    """Pixels of the picture made, from the frame's top left corner, half-open."""
    percent = scene.render.resolution_percentage
    width, height = (side * percent // 100 for side in (scene.render.resolution_x, scene.render.resolution_y))
    named = [int(request.get(side, 0)) for side in ("left", "top", "right", "bottom")]
    return named if named[2] else [0, 0, width, height]


def _has_compositor(scene: Any) -> bool:
    """Whether nodes change the picture after it was rendered."""
    tree = getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)
    is_on = scene.render.use_compositing and getattr(scene, "use_nodes", True) and tree
    return bool(is_on) and any(node.type not in _PASSING_NODES and not node.mute for node in tree.nodes)


def _has_strips(scene: Any) -> bool:
    editor = scene.sequence_editor
    return bool(editor) and len(getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ())) > 0


def _has_passes(scene: Any) -> bool:
    """Whether the file's view layers hold more than one picture."""
    layers = [layer for layer in scene.view_layers if layer.use]
    no_pass = ("use_pass_combined", "use_pass_cryptomatte_accurate")
    switches = [name for name in dir(layers[0]) if name.startswith("use_pass_") and name not in no_pass]
    cycles = ("denoising_store_passes", "pass_debug_sample_count", "use_pass_volume_direct", "use_pass_volume_indirect",
              "use_pass_shadow_catcher")  # fmt: skip
    return len(layers) > 1 or any(
        any(getattr(layer, name) for name in switches)
        or any(getattr(layer.cycles, name, False) for name in cycles)
        or len(layer.aovs) > 0
        or len(layer.lightgroups) > 0
        for layer in layers
    )


def _color(scene: Any) -> dict[str, Any]:
    """How the scene turns light into the picture one sees."""
    view = scene.view_settings
    return {
        "display": scene.display_settings.display_device,
        "view": view.view_transform,
        "look": "" if view.look == "None" else view.look,
        "exposure": view.exposure,
        "gamma": view.gamma,
        "curves": view.use_curve_mapping,
        "white_balance": getattr(view, "use_white_balance", False),
    }


def _triangles() -> int:
    """Triangles of everything that is rendered, modifiers and instances included."""
    import numpy

    graph, of_mesh, total = bpy.context.evaluated_depsgraph_get(), {}, 0
    for instance in graph.object_instances:
        thing = instance.object
        if thing.type not in ("MESH", "CURVE", "SURFACE", "META", "FONT") or thing.hide_render:
            continue
        key = thing.data.as_pointer() if thing.data else thing.as_pointer()
        if key not in of_mesh:
            mesh = thing.to_mesh()
            corners = numpy.zeros(len(mesh.polygons) if mesh else 0, dtype=numpy.int32)
            if mesh:
                mesh.polygons.foreach_get("loop_total", corners)
            of_mesh[key] = int((corners - 2).clip(min=0).sum())
            thing.to_mesh_clear()
        total += of_mesh[key]
    return total


def _save(scene: Any, path: str, kind: str, picture: str, depth: str) -> None:
    settings = scene.render.image_settings
    settings.file_format, settings.color_depth = kind, depth
    if kind == "PNG":
        settings.compression = 15
    else:
        settings.exr_codec = "ZIP"
    if kind != "OPEN_EXR_MULTILAYER":
        settings.color_mode = picture
    try:
        bpy.data.images["Render Result"].save_render(path, scene=scene)
    except RuntimeError as error:
        raise Refused(f"Blender could not write the picture: {error}; is the disk full?") from error


def _check_exr(path: Path, frame: int) -> None:
    """A disk that ran full leaves a file whose table of parts, which is written last, has holes or points outside."""
    with path.open("rb") as file:
        if len(head := file.read(8)) < 8 or head[:4] != b"\x76\x2f\x31\x01":
            raise Refused(f"frame {frame} was not written: is the disk full?")
        attributes: dict[bytes, bytes] = {}
        while name := _until_nul(file):
            _until_nul(file)
            attributes[name] = file.read(struct.unpack("<I", file.read(4))[0])
        _, top, _, bottom = struct.unpack("<4i", attributes[b"dataWindow"])
        parts = -(-(bottom - top + 1) // 16)  # ZIP: 16 lines each
        table = struct.unpack(f"<{parts}Q", file.read(8 * parts))
        end = file.seek(0, 2)
        for offset in table:
            file.seek(offset + 4)
            size = file.read(4)
            if not offset or len(size) < 4 or offset + 8 + struct.unpack("<I", size)[0] > end:
                raise Refused(f"frame {frame} was not written whole: is the disk full?")


def _until_nul(file: Any) -> bytes:
    text = b""
    while (byte := file.read(1)) not in (b"\0", b""):
        text += byte
    return text


def _check_png(path: Path, frame: int) -> None:
    if path.read_bytes()[-8:-4] != b"IEND":
        raise Refused(f"the PNG of frame {frame} was not written whole: is the disk full?")


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
            _put(scene.cycles, device="GPU")
            return kind.lower(), names
    if wanted not in ("auto", "cpu"):
        raise Refused(f"no {wanted} device is visible to Blender on this node (valid: auto, cpu, cuda, optix)")
    _put(scene.cycles, device="CPU")
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
