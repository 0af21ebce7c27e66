"""A field of Blender's monkey heads at dusk: a small film that needs no file but this one.

`build(seed, args)` is called by shisuan in an empty Blender scene. The same seed always gives the same film.

args: frames (24)   length of the camera's flight, from frame 1
      heads (90)    how many heads stand in the field
"""

import colorsys
import math
import random

import bmesh
import bpy
from mathutils import Vector

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # seeds of a sunflower: even, and never in rows


def build(seed, args):
    frames, heads = int(args.get("frames", 24)), int(args.get("heads", 90))
    rng = random.Random(seed)
    hue = rng.random()
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, frames
    set_up_render(scene)
    sky(scene, hue)
    sun(scene)
    floor(scene, hue)
    path = [flight(frame, frames) for frame in range(1, frames + 1)]
    fly(scene, path)
    field(scene, rng, hue, heads, path)


def set_up_render(scene):
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = 640, 360
    scene.render.fps = 24
    cycles = scene.cycles
    cycles.samples = 16
    cycles.use_denoising = True
    # One bounce of each kind: a head mirrors its neighbours, and a still of 33 million pixels stays quick.
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 2, 1, 1
    cycles.use_light_tree = False  # there is one lamp
    cycles.caustics_reflective = False  # the sun on a golden head would sparkle on the floor
    cycles.sample_clamp_indirect = 4.0  # no fireflies at few samples
    cycles.debug_bvh_type = "DYNAMIC_BVH"  # heads only move: their shape is prepared once
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"


def rgb(hue, saturation, value):
    return (*colorsys.hsv_to_rgb(hue % 1.0, saturation, value), 1.0)


def link(scene, name, data):
    thing = bpy.data.objects.new(name, data)
    scene.collection.objects.link(thing)
    return thing


def sky(scene, hue):
    """From a warm horizon up to a deep night sky."""
    world = bpy.data.worlds.new("dusk")
    world.use_nodes = True
    scene.world = world
    nodes, wires = world.node_tree.nodes, world.node_tree.links
    where = nodes.new("ShaderNodeTexCoord")
    split = nodes.new("ShaderNodeSeparateXYZ")
    ramp = nodes.new("ShaderNodeValToRGB")
    wires.new(where.outputs["Generated"], split.inputs[0])
    wires.new(split.outputs["Z"], ramp.inputs["Fac"])
    wires.new(ramp.outputs["Color"], nodes["Background"].inputs["Color"])
    stops = ramp.color_ramp.elements
    stops[0].position, stops[0].color = 0.0, (1.0, 0.42, 0.16, 1.0)
    stops[1].position, stops[1].color = 0.75, rgb(0.64, 0.85, 0.10)
    for position, color in ((0.10, (0.95, 0.33, 0.26, 1.0)), (0.25, (0.42, 0.20, 0.42, 1.0))):
        stops.new(position).color = color
    nodes["Background"].inputs["Strength"].default_value = 0.9
    world.cycles.sampling_method = "NONE"  # it is smooth: rays that leave the scene find it


def sun(scene):
    light = bpy.data.lights.new("sun", "SUN")
    light.energy, light.color, light.angle = 4.5, (1.0, 0.72, 0.45), math.radians(4)
    link(scene, "sun", light).rotation_euler = (math.radians(62), 0, math.radians(-62))


def floor(scene, hue):
    mesh = bpy.data.meshes.new("floor")
    far = 2000
    mesh.from_pydata([(-far, -far, 0), (far, -far, 0), (far, far, 0), (-far, far, 0)], [], [(0, 1, 2, 3)])
    link(scene, "floor", mesh)
    mesh.materials.append(material("floor", rgb(hue + 0.55, 0.5, 0.05), metallic=0.0, roughness=0.3))


def material(name, color, *, metallic, roughness):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    inputs = made.node_tree.nodes["Principled BSDF"].inputs
    inputs["Base Color"].default_value = color
    inputs["Metallic"].default_value = metallic
    inputs["Roughness"].default_value = roughness
    return made


def head_mesh():
    """One smooth head; all heads share it, so it is stored once in the file and once in the renderer."""
    rough = bmesh.new()
    bmesh.ops.create_monkey(rough)
    mesh = bpy.data.meshes.new("head")
    rough.to_mesh(mesh)
    rough.free()
    mesh.materials.append(None)  # each object brings its own
    model = bpy.data.objects.new("model", mesh)
    bpy.context.scene.collection.objects.link(model)
    model.modifiers.new("smooth", "SUBSURF").levels = 2
    smooth = bpy.data.meshes.new_from_object(model.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    bpy.data.objects.remove(model)
    smooth.polygons.foreach_set("use_smooth", [True] * len(smooth.polygons))
    return smooth


def field(scene, rng, hue, heads, path):
    mesh = head_mesh()
    coats = [
        material("gold", (1.0, 0.62, 0.18, 1.0), metallic=1.0, roughness=0.18),
        material("chrome", (0.85, 0.88, 0.95, 1.0), metallic=1.0, roughness=0.1),
        *(material(f"lacquer {i}", rgb(hue + i * 0.13, 0.85, 0.8), metallic=0.0, roughness=0.25) for i in range(7)),
    ]
    for i in range(heads):
        size = 1.9 if i == 0 else rng.uniform(0.7, 1.2)
        coat = coats[0] if i == 0 else rng.choice(coats)
        radius, angle = 2.5 * math.sqrt(i), i * GOLDEN_ANGLE
        spot = Vector((radius * math.cos(angle), radius * math.sin(angle), size + 0.4))
        if min((spot - eye).length for eye in path) < 5.5:
            continue  # nobody stands in the camera's way
        head = link(scene, f"head {i:03d}", mesh)
        head.scale = (size, size, size)
        head.material_slots[0].link = "OBJECT"
        head.material_slots[0].material = coat
        watch(head, spot, rng.uniform(-0.35, 0.35), path)


def watch(head, spot, shyness, path):
    """The head turns after the camera and rocks in a slow wave that runs outwards through the field."""
    wave = spot.xy.length * 0.45
    for frame in sorted({*range(1, len(path) + 1, 4), len(path)}):
        swing = 2 * math.pi * (frame - 1) / 48 - wave
        away = path[frame - 1] - spot
        head.location = spot + Vector((0, 0, 0.45 * math.sin(swing)))
        head.rotation_euler = (
            0.14 * math.cos(swing) - 0.12,
            0.12 * math.sin(swing),
            math.atan2(away.x, -away.y) + shyness,
        )
        head.keyframe_insert("location", frame=frame)
        head.keyframe_insert("rotation_euler", frame=frame)


def flight(frame, frames):
    """Where the camera is: it sinks and turns around the golden head in the middle."""
    done = (frame - 1) / max(1, frames - 1)
    eased = done * done * (3 - 2 * done)
    angle, distance = math.radians(-132 + 66 * eased), 19 - 6.5 * eased
    return Vector((distance * math.cos(angle), distance * math.sin(angle), 7.2 - 3.9 * eased))


def fly(scene, path):
    lens = bpy.data.cameras.new("camera")
    lens.lens, lens.dof.use_dof, lens.dof.aperture_fstop = 40, True, 0.8
    camera = link(scene, "camera", lens)
    scene.camera = camera
    goal = Vector((0, 0, 2.3))
    for frame, eye in enumerate(path, start=1):
        camera.location = eye
        camera.rotation_euler = (goal - eye).to_track_quat("-Z", "Y").to_euler()
        lens.dof.focus_distance = (goal - eye).length
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)
        lens.dof.keyframe_insert("focus_distance", frame=frame)
