"""Each row: a wrong file and the exact text its owner reads."""

import pytest

from scheduler.model.catalogue import BY_ID, features

COMMAND = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: echo hello\n"
RENDER = "apiVersion: shisuan/v1\nkind: RenderJob\nname: film\nscene: shot.blend\nframes: 1-24\n"
TRANSCODE = "apiVersion: shisuan/v1\nkind: TranscodeJob\nname: film\ninput: take.mov\n"
TRAIN = "apiVersion: shisuan/v1\nkind: TrainJob\nname: gpt\n"
PIPELINE = "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\nsteps:\n"
STEP_FIELDS = (
    "array, backoff, backoff_max, env, expected, grace, inputs, kind, name, needs, num_nodes, output_files, outputs, "
    "preemptible, resources, retries, run, timeout, together"
)
RENDER_FIELDS = (
    "after, apiVersion, backoff, backoff_max, band, chunk, deadline, denoise, depth, device, engine, expected, frames, "
    "grace, inputs, kind, max_parallel, name, outputs, passes, png, preemptible, priority, queue, resolution, "
    "resources, retries, samples, scene, slices, tiles, timeout"
)

RAY_TRACING = sorted(model for model in BY_ID if "rt" in features(model))

ROWS = {
    "a training of nothing": (TRAIN, "script: say what to train: either script or module"),
    "a training of two things": (
        TRAIN + "script: train.py\nmodule: train",
        "script: say what to train: either script or module",
    ),
    "a training script that is none": (TRAIN + "script: shot.blend", "script: 'shot.blend' is not a Python file"),
    "no such training script": (TRAIN + "script: gpt.py", "script: 'gpt.py': there is no file /films/gpt.py"),
    "a module that is a file": (
        TRAIN + "module: a/b.py",
        "module: must be a module name such as torchtune.train, got 'a/b.py'",
    ),
    "arguments as one text": (
        TRAIN + "module: a\nargs: --steps 5",
        "args: must be a list of texts and numbers, got '--steps 5'",
    ),
    "a Python that is not there": (
        TRAIN + "module: a\npython: venv/bin/python",
        "python: 'venv/bin/python': there is no file /films/venv/bin/python",
    ),
    "too many training processes": (
        TRAIN + "module: a\nprocesses_per_node: 257",
        "processes_per_node: must be a whole number from 1 to 256, got 257",
    ),
    "unknown codec": (
        TRANSCODE + "codec: h265",
        "codec: unknown codec 'h265'; did you mean 'h264'? (valid: h264, hevc)",
    ),
    "unknown field, nearest name": (
        RENDER + "sample: 4",
        f"sample: unknown field 'sample'; did you mean 'samples'? (valid: {RENDER_FIELDS})",
    ),
    "unknown field in a step": (
        PIPELINE + "- {name: a, kind: command, run: 'true', retry: 1}",
        f"steps[0].retry: unknown field 'retry'; did you mean 'retries'? (valid: {STEP_FIELDS})",
    ),
    "unknown field under resources": (
        COMMAND + "resources: {gpus: 1}",
        "resources.gpus: unknown field 'gpus'; did you mean 'accelerators'? (valid: accelerator_memory, "
        "accelerators, cpus, features, labels, licences, memory, same_island, scratch, tolerations)",
    ),
    "unknown field under scene": (
        "apiVersion: shisuan/v1\nkind: RenderJob\nname: film\nframes: 1\nscene: {script: s.py, sed: 7}",
        "scene.sed: unknown field 'sed'; did you mean 'seed'? (valid: args, script, seed)\n"
        "scene.script: 's.py': there is no file /films/s.py",
    ),
    "unknown queue": (
        COMMAND + "queue: nigth",
        "queue: unknown queue 'nigth'; did you mean 'night'? (valid: day, night)",
    ),
    "somebody else's queue": (COMMAND + "queue: others", "queue: unknown queue 'others' (valid: day, night)"),
    "unknown kind": (
        "apiVersion: shisuan/v1\nkind: RenderJobs",
        "kind: unknown kind 'RenderJobs'; did you mean 'RenderJob'? "
        "(valid: CommandJob, Pipeline, RenderJob, TrainJob, TranscodeJob)",
    ),
    "no kind": ("name: x", "kind: is required (valid: CommandJob, Pipeline, RenderJob, TrainJob, TranscodeJob)"),
    "unknown kind of step": (
        PIPELINE + "- {name: a, kind: rendr}",
        "steps[0].kind: unknown kind 'rendr'; did you mean 'render'? (valid: command, render, train, transcode)",
    ),
    "a step that is no mapping": (PIPELINE + "- encode", "steps[0]: must be a mapping of fields, got 'encode'"),
    "another version": (
        "apiVersion: v1\nkind: CommandJob\nname: a\nrun: a",
        "apiVersion: unknown apiVersion 'v1' (valid: shisuan/v1)",
    ),
    "0 cards": (
        COMMAND + "resources: {accelerators: 'H100:0'}",
        "resources.accelerators: must be at least 1 card, or a fraction such as 0.5, got '0'; leave it out for no card",
    ),
    "1.5 cards": (
        COMMAND + "resources: {accelerators: {H100: 1.5}}",
        "resources.accelerators: must be whole cards, or a fraction below 1, got 1.5",
    ),
    "unknown card model": (
        PIPELINE + "- {name: a, kind: command, run: a, resources: {accelerators: 'H10O:8'}}",
        "steps[0].resources.accelerators: unknown card model 'H10O'; did you mean 'H100'? "
        "(valid: A100-PCIE-40GB, A100-SXM-80GB, H100-PCIE-80GB, H100-SXM-80GB, L40S, RTX-4090)",
    ),
    "a shared MIG instance": (
        COMMAND + "resources: {accelerators: '1g.10gb:0.5'}",
        "resources.accelerators: a MIG instance cannot be shared: the count must be whole, got '0.5'",
    ),
    "input outside the roots": (
        TRANSCODE.replace("take.mov", "/etc/passwd"),
        "input: '/etc/passwd' lies outside the tenant's storage roots; "
        "an operator adds one with up --root (valid: /home, /films)",
    ),
    "input outside by ..": (
        RENDER.replace("shot.blend", "../x.blend"),
        "scene: '../x.blend' is /x.blend and lies outside the tenant's storage roots; "
        "an operator adds one with up --root (valid: /home, /films)",
    ),
    "output outside the roots": (
        COMMAND + "outputs: /srv/other",
        "outputs: '/srv/other' lies outside the tenant's storage roots; "
        "an operator adds one with up --root (valid: /home, /films)",
    ),
    "output outside by name": (
        COMMAND.replace("hello\nrun", "..\nrun") + "outputs: ${job.name}/x",
        "outputs: '../x' is /x and lies outside the tenant's storage roots; "
        "an operator adds one with up --root (valid: /home, /films)",
    ),
    "an output file that climbs": (
        COMMAND + "output_files: ../../etc/cron.d/x",
        "output_files[0]: must be a file name below the outputs folder, got '../../etc/cron.d/x'",
    ),
    "another storage": (
        TRANSCODE.replace("take.mov", "s3://films/a.mov"),
        "input: 's3://films/a.mov' lies outside the tenant's storage roots (valid: /home, /films)",
    ),
    "home sign": (
        TRANSCODE.replace("take.mov", "~/a.mov"),
        "input: '~/a.mov': '~' is not expanded; write the whole path",
    ),
    "missing input": (RENDER.replace("shot", "film"), "scene: 'film.blend': there is no file /films/film.blend"),
    "missing video": (
        TRANSCODE.replace("take", "film"),
        "input: 'film.mov': there is no file or folder /films/film.mov",
    ),
    "not a blend": (
        RENDER.replace("shot.blend", "heads.py"),
        "scene: 'heads.py' is not a .blend file; for a script write {script: heads.py, seed: 7}",
    ),
    "cycle": (
        PIPELINE + "- {name: a, kind: command, run: a, needs: [c]}\n"
        "- {name: b, kind: command, run: 'cat ${steps.a.outputs}/x'}\n"
        "- {name: c, kind: command, run: c, needs: b}\n",
        "steps[0].needs: steps need each other in a circle: a -> c -> b -> a",
    ),
    "a step that needs itself": (
        PIPELINE + "- {name: a, kind: command, run: a, needs: [a]}",
        "steps[0].needs: steps need each other in a circle: a -> a",
    ),
    "unknown step in needs": (
        PIPELINE + "- {name: render, kind: command, run: a}\n- {name: b, kind: command, run: b, needs: [rendr]}",
        "steps[1].needs[0]: unknown step 'rendr'; did you mean 'render'? (valid: render)",
    ),
    "unknown step in a reference": (
        PIPELINE + "- {name: a, kind: command, run: 'ls ${steps.b.outputs}'}",
        "steps[0].run: there is no step 'b' (valid: a)",
    ),
    "unknown reference": (
        COMMAND.replace("echo hello", "echo ${job.nam}"),
        "run: ${job.nam} is not a reference that can be used here; did you mean '${job.name}'? "
        "(valid: ${job.name}, ${job.id}, ${task.index}, ${steps.NAME.outputs})",
    ),
    "a shell variable in a path": (
        COMMAND + "outputs: ${HOME}/x",
        "outputs: ${HOME} is not a reference that can be used here "
        "(valid: ${job.id}, ${job.name}, ${job.dir}, ${task.index}, ${steps.NAME.outputs})",
    ),
    "two steps of one name": (
        PIPELINE + "- {name: a, kind: command, run: a}\n- {name: a, kind: command, run: b}",
        "steps[1].name: the name 'a' is taken by steps[0]",
    ),
    "a name the automatic scene step takes": (
        PIPELINE + "- {name: r-scene, kind: command, run: a}\n"
        "- {name: r, kind: render, scene: {script: heads.py}, frames: 1}",
        "steps[1].name: the name 'r-scene' for the scene of step 'r' is taken by steps[0]",
    ),
    "bad step name": (
        PIPELINE + "- {name: Render_1, kind: command, run: a}",
        "steps[0].name: must be 1 to 40 of a-z, 0-9 and '-', with a letter or digit at both ends, got 'Render_1'",
    ),
    "no steps": (PIPELINE + "  []", "steps: needs at least 1 entry"),
    "too many tasks": (
        COMMAND + "array: 0-1000000",
        "array: the job has 1,000,001 tasks, 1,000,001 of them here; the limit is 1,000,000",
    ),
    "a deadline in the past": (
        COMMAND + "deadline: 2020-01-31T09:00:00+08:00",
        "deadline: '2020-01-31T09:00:00+08:00' is in the past",
    ),
    "a deadline without a zone": (
        COMMAND + "deadline: 2030-01-31T09:00:00",
        "deadline: needs a time zone such as 2030-01-31T09:00:00+08:00, or Z for UTC",
    ),
    "a malformed deadline": (
        COMMAND + "deadline: tomorrow",
        "deadline: must be an instant with a zone such as 2026-12-01T09:00:00+08:00, or a time from now such as +6h, "
        "got 'tomorrow'",
    ),
    "priority": (
        COMMAND + "priority: 101",
        "priority: must be 0 to 100 or a name, got 101 (valid: low, normal, high, urgent)",
    ),
    "expected": (COMMAND + "expected: soon", "expected: must be a duration such as 90s, 30m, 1h30m or 2d, got 'soon'"),
    "preemptible": (COMMAND + "preemptible: never", "preemptible: must be true or false, got 'never'"),
    "together": (
        COMMAND + "together: island",
        "together: unknown distance 'island' (valid: anywhere, rack, node)",
    ),
    "licences": (
        COMMAND + "resources: {licences: nuke}",
        "resources.licences: must be a mapping of licences to seats such as {nuke: 1}, got 'nuke'",
    ),
    "no seats": (
        COMMAND + "resources: {licences: {nuke: 0}}",
        "resources.licences: must be a number of seats of nuke from 1 to 1000, got 0",
    ),
    "more nodes at least than at most": (
        TRAIN + "module: a\nnum_nodes: 2\nmin_nodes: 3",
        "min_nodes: must be at most num_nodes, 2, got 3",
    ),
    "checkpoints of a command": (
        COMMAND + "checkpoint_every: 10m",
        "checkpoint_every: unknown field 'checkpoint_every' (valid: after, apiVersion, array, backoff, "
        "backoff_max, band, deadline, env, expected, grace, inputs, kind, name, num_nodes, output_files, outputs, "
        "preemptible, priority, queue, resources, retries, run, timeout, together)",
    ),
    "after": (COMMAND + "after: 17", "after: must be a list, got 17"),
    "retries": (COMMAND + "retries: -1", "retries: must be a whole number from 0 to 100, got -1"),
    "timeout": (
        COMMAND + "timeout: 30 minutes",
        "timeout: must be a duration such as 90s, 30m, 1h30m or 2d, got '30 minutes'",
    ),
    "num_nodes": (COMMAND + "num_nodes: 0", "num_nodes: must be a whole number from 1 to 1024, got 0"),
    "cpus": (
        COMMAND + "resources: {cpus: many}",
        "resources.cpus: must be a number of CPUs such as 4, 0.5 or '4+', got 'many'",
    ),
    "memory": (
        COMMAND + "resources: {memory: 8 gallons}",
        "resources.memory: must be a size such as 8GiB, 512MiB or 8 (GiB), got '8 gallons'",
    ),
    "env name": (
        COMMAND + "env: {A-B: 1}",
        "env: 'A-B' is not a variable name (letters, digits and '_', no digit first)",
    ),
    "env of ours": (COMMAND + "env: {SHISUAN_TOKEN: x}", "env: SHISUAN_TOKEN is set by shisuan itself"),
    "array": (COMMAND + "array: 5-2", "array: '5-2' ends before it starts"),
    "array limit": (
        COMMAND + "array: 0-9%0",
        "array: after % comes how many tasks may run at once, at least 1, got '0'",
    ),
    "array outputs that collide": (
        COMMAND + "array: 0-3\noutput_files: result.txt",
        "output_files: every task of the array would publish 'result.txt'; put ${task.index} into it or into outputs",
    ),
    "frames": (RENDER.replace("1-24", "1-24,20"), "frames: 20 is named twice"),
    "resolution": (RENDER + "resolution: 1080p", "resolution: must be like 1920x1080 or [1920, 1080], got '1080p'"),
    "engine": (RENDER + "engine: eevee", "engine: unknown engine 'eevee' (valid: cycles)"),
    "device without a card": (
        RENDER + "device: cuda",
        "resources.accelerators: device cuda renders on a card, but no card is asked for; "
        "write accelerators: 1 or device: auto",
    ),
    "device without ray tracing": (
        RENDER + "device: optix\nresources: {accelerators: A100}",
        "resources.accelerators: A100-PCIE-40GB, A100-SXM-80GB has no ray-tracing cores, which OptiX needs; write "
        f"device: cuda (valid: {', '.join(RAY_TRACING)})",
    ),
    "tiles": (RENDER + "tiles: 4", "tiles: must be like 4x4 or [4, 4], columns by rows, got 4"),
    "too many tiles": (
        RENDER + "resolution: 1920x1080\ntiles: 65x2",
        "tiles: must be 1 to 64 tiles across and down, got 65x2",
    ),
    "tiles of nothing": (
        RENDER + "tiles: 2x2",
        "tiles: tiles are windows in pixels, so the step needs its resolution, such as 7680x4320",
    ),
    "tiny tiles": (
        RENDER + "resolution: 64x32\ntiles: 8x8",
        "tiles: 8x8 tiles of 64x32 pixels would be smaller than 8 pixels a side; the most here is 8x4",
    ),
    "slices of unknown samples": (
        RENDER + "slices: 2",
        "slices: slices share out the samples, so the step needs its samples, such as 64",
    ),
    "more slices than samples": (
        RENDER + "slices: 5\nsamples: 4",
        "slices: 5 slices cannot share 4 samples; the most here is 4",
    ),
    "denoise": (RENDER + "denoise: optix", "denoise: must be true or false, got 'optix'"),
    "depth": (RENDER + "depth: double", "depth: unknown depth 'double' (valid: float, half)"),
    "png": (RENDER + "png: 10", "png: unknown PNG depth '10' (valid: 8, 16, off)"),
    "passes": (RENDER + "passes: depth", "passes: unknown choice of passes 'depth' (valid: all, picture)"),
    "chunk": (RENDER + "chunk: 0", "chunk: must be a whole number from 1 to 10000, got 0"),
    "a film of frames without PNG": (
        PIPELINE + "- {name: r, kind: render, scene: shot.blend, frames: 1-3, png: off}\n"
        "- {name: f, kind: transcode, input: '${steps.r.outputs}'}",
        "steps[1].input: '${steps.r.outputs}': step 'r' makes no PNG; a film needs its png: 8, or 16",
    ),
    "a name the automatic tiles step takes": (
        PIPELINE + "- {name: r-tiles, kind: command, run: a}\n"
        "- {name: r, kind: render, scene: shot.blend, frames: 1, resolution: 64x64, tiles: 2x2}",
        "steps[1].name: the name 'r-tiles' for the tiles of step 'r' is taken by steps[0]",
    ),
    "film's container": (
        TRANSCODE + "outputs: film.avi",
        "outputs: must be a file that ends in one of these, got 'film.avi' (valid: .mp4, .mov, .mkv)",
    ),
    "fps": (TRANSCODE + "fps: 24p", "fps: '24p' is not a frame rate like 24, 25, 23.976 or 24000/1001"),
    "missing frames": (
        TRANSCODE.replace("take.mov", "shot.####.png") + "frames: 1-9",
        "frames: 3 of 9 frames are not there: 1, 2, 9 of /films/shot.####.png",
    ),
    "a gap in the frames there are": (
        TRANSCODE.replace("take.mov", "gap.####.png"),
        "frames: 1 of 3 frames are not there: 2 of /films/gap.####.png",
    ),
    "two films in one place": (
        PIPELINE + "- {name: a, kind: transcode, input: take.mov, outputs: x.mp4}\n"
        "- {name: b, kind: transcode, input: take.mov, outputs: ./x.mp4}",
        "steps[1].outputs: writes the same files as steps[0]; give each its own outputs",
    ),
    "text where a mapping is meant": (COMMAND + "resources: 4", "resources: must be a mapping of fields, got 4"),
    "empty run": (COMMAND.replace("echo hello", "''"), "run: is empty: say what to run"),
    "fields without values count as left out": (
        "apiVersion: shisuan/v1\nkind: CommandJob\nname:\nrun:\nqueue:",
        "name: is required\nrun: is required",
    ),
}


@pytest.mark.parametrize(("text", "expected"), ROWS.values(), ids=ROWS.keys())
def test_owner_reads_exactly(studio, text, expected):
    studio.file("heads.py")
    studio.file("shot.blend")
    studio.file("take.mov")
    studio.frames("shot.{:04d}.png", range(3, 9))
    studio.frames("gap.{:04d}.png", range(1, 4, 2))
    assert studio.refusal(text).replace(str(studio.films.parent), "") == expected


def test_an_unknown_mig_profile_lists_those_that_cards_can_be_cut_into(studio):
    told = studio.refusal(COMMAND + "resources: {accelerators: '1g.11gb:2'}")
    assert told.startswith(
        "resources.accelerators: no card can be cut into MIG instances '1g.11gb'; did you mean '1g.1"
    )
    assert ", 3g.40gb, " in told


def test_every_problem_is_told_at_once(studio):
    text = PIPELINE + (
        "- {name: a, kind: command, run: a, retries: many, outputs: /etc}\n"
        "- {name: b, kind: transcode, input: nowhere.mov, codec: vp9, crf: 99}\n"
    )
    told = studio.refusal("queue: dusk\n" + text)
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "steps[0].retries",
        "steps[1].codec",
        "steps[1].crf",
        "queue",
        "steps[0].outputs",
        "steps[1].input",
    ]


def test_symlink_out_of_the_roots_is_seen_through(studio):
    (studio.films / "door").symlink_to("/etc")
    told = studio.refusal(TRANSCODE.replace("take.mov", "door/passwd"))
    assert told == (
        "input: 'door/passwd' is /etc/passwd and lies outside the tenant's storage roots; "
        "an operator adds one with up --root (valid: /home, /films)"
    )


def test_tenant_without_roots_reads_why(studio):
    text = COMMAND + "outputs: x"
    assert studio.read(COMMAND, tenant=bare(studio)).steps
    assert studio.refusal(text, tenant=bare(studio)) == (
        "outputs: this tenant has no storage root; an operator can give it one"
    )


def bare(studio):
    return type(studio.tenant)(name="bare", queues=("day",))


def test_tenant_without_queues_reads_why(studio):
    tenant = type(studio.tenant)(name="bare", queues=(), storage_roots=(str(studio.home),))
    assert (
        studio.refusal(COMMAND, tenant=tenant) == "queue: tenant 'bare' may use no queue; an operator can give it one"
    )
