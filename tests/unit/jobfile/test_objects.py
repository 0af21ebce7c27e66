"""Inputs, outputs and checkpoints in an S3-compatible store, in job files."""

from dataclasses import replace

import pytest

from pipelines import plan
from scheduler.model import codec
from workers.staging import mapped

BUCKET = "s3://park/studio"


@pytest.fixture
def store(studio):
    """The tenant may use a bucket, and no folder."""
    studio.tenant = replace(studio.tenant, storage_roots=(BUCKET,))
    read = studio.read
    studio.read = lambda text, **changed: read(text, **({"base_dir": ""} | changed))
    return studio


def orders(draft):
    job = draft.job("j1", "")
    return [plan.order(job, step, 0, 1) for step in job.steps]


def told(order):
    """What its program is told, once its inputs are on a node."""
    there = mapped(order, tuple((uri, f"/copies/{n}") for n, uri in enumerate(order.reads)))
    return codec.dumps((there.argv, there.env, there.request))


FILES = {
    "render": f"RenderJob\nscene: {BUCKET}/shot/a.blend\nframes: 1-3",
    "tiles": "RenderJob\nscene: shot/a.blend\nframes: 1\ntiles: 2x2\nresolution: 64x64\nsamples: 4",
    "script": "RenderJob\nscene: {script: shot/a.py, seed: 1}\nframes: 1-3",
    "film": f"TranscodeJob\ninput: {BUCKET}/a.mov\noutputs: films/a.mp4",
    "frames": "TranscodeJob\ninput: frames/f.####.png\nframes: 1-24\nchunks: 3",
    "folder": "TranscodeJob\ninput: frames",
    "train": "TrainJob\nscript: code/train.py\nargs: ['--data', 's3://park/studio/data']\ninputs: [data]",
    "command": f"CommandJob\nrun: cat {BUCKET}/in/a\ninputs: [{BUCKET}/in]\noutputs: out",
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_reads_and_writes_objects(store, kind):
    draft = store.read(f"apiVersion: shisuan/v1\nname: film\nkind: {FILES[kind]}\n")
    for order in orders(draft):
        assert order.reads
        assert all(uri.startswith(f"{BUCKET}/") for uri in order.reads)
        assert order.output_dir.startswith(f"{BUCKET}/")
        assert not [uri for uri in order.reads if uri in told(order)], "the program is told paths of copies"


def test_relative_places_start_at_the_first_root(store):
    order = orders(store.read("apiVersion: shisuan/v1\nname: a\nkind: TranscodeJob\ninput: ./cut/a.mov\n"))[0]
    assert order.reads == (f"{BUCKET}/cut/a.mov",)
    assert order.output_dir == f"{BUCKET}/jobs/j1/transcode"


def test_folders_and_a_bucket_may_be_mixed(studio):
    studio.tenant = replace(studio.tenant, storage_roots=(*studio.tenant.storage_roots, BUCKET))
    film = studio.file("a.mov")
    text = f"apiVersion: shisuan/v1\nname: a\nkind: TranscodeJob\ninput: a.mov\noutputs: {BUCKET}/out/a.mp4\n"
    order = orders(studio.read(text))[0]
    assert (order.reads, order.output_dir) == ((str(film),), f"{BUCKET}/out")


def test_a_command_without_inputs_is_brought_no_bucket(studio):
    studio.tenant = replace(studio.tenant, storage_roots=(*studio.tenant.storage_roots, BUCKET))
    order = orders(studio.read("apiVersion: shisuan/v1\nname: a\nkind: CommandJob\nrun: 'true'\n"))[0]
    assert order.reads == (str(studio.home), str(studio.films))


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (
            "input: s3://other/a.mov",
            "input: 's3://other/a.mov' lies outside the tenant's storage roots (valid: s3://park/",
        ),
        ("input: s3://park/studio2/a.mov", "lies outside the tenant's storage roots"),
        ("input: s3://park/studio/../x.mov", "has an empty, '.' or '..' part"),
        ("input: ../x.mov", "has an empty, '.' or '..' part"),
        ("input: s3://park/studio//x.mov", "has an empty, '.' or '..' part"),
        ("input: gs://park/x.mov", "only paths, file:// and s3:// are known"),
        ("input: /etc/passwd", "lies outside the tenant's storage roots"),
        ("input: f.####.png", "frames: is required: nobody looks into s3://park/studio before the job runs"),
    ],
)
def test_what_no_store_has_is_told_at_its_field(store, field, says):
    assert says in store.refusal(f"apiVersion: shisuan/v1\nname: a\nkind: TranscodeJob\n{field}\n")


def test_a_python_does_not_lie_in_a_bucket(store):
    text = f"apiVersion: shisuan/v1\nname: a\nkind: TrainJob\nscript: t.py\npython: {BUCKET}/venv/bin/python\n"
    assert "must lie in a folder that the nodes see" in store.refusal(text)
