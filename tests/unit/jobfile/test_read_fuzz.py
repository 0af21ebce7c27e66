"""Whatever a mapping holds, ``read`` gives a Draft or InvalidInput, and a Draft's every task can be planned."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipelines.plan import order
from scheduler.jobfile import jobfields, kinds, schema
from scheduler.model import codec
from scheduler.model.errors import InvalidInput
from scheduler.model.job import Job

NAMES = sorted(
    {*jobfields.Resources.model_fields, *kinds.SceneScript.model_fields, "count", "max_parallel"}.union(
        *(model.model_fields for model in (*kinds.JOB_KINDS.values(), *kinds.STEP_KINDS.values()))
    )
)
WORDS = st.sampled_from(
    ["a", "b", "auto", "1-4", "0-9%2", "h264", "H100:2", "0.5", "1g.10gb", "30m", "+6h", "cuda", "shot.blend", "out",
     "take.mov", "shot.####.png", "film.mp4", "${steps.a.outputs}", "${steps.b.outputs}/x.####.png", "${task.index}",
     "${job.id}", "..", "command", "render", "transcode", "CommandJob", "x" * 300, "", "\n", "{work}", "night"]
)  # fmt: skip
LEAVES = st.one_of(WORDS, st.integers(-2, 40), st.floats(), st.booleans(), st.none(), st.text(max_size=5))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=6,
)
GOOD = {
    "CommandJob": {"run": "a"},
    "RenderJob": {"scene": "shot.blend", "frames": "1-4"},
    "TranscodeJob": {"input": "take.mov"},
}
STEPS = st.builds(
    lambda kind, name, changed: {"name": name, "kind": kind, **GOOD[kind], **changed},
    st.sampled_from(sorted(GOOD)),
    st.sampled_from("abc"),
    st.dictionaries(st.sampled_from(NAMES), TREES, max_size=2),
)
FILES = st.one_of(
    st.builds(
        lambda kind, changed: {"apiVersion": jobfields.API_VERSION, "name": "x", "kind": kind, **GOOD[kind], **changed},
        st.sampled_from(sorted(GOOD)),
        st.dictionaries(st.sampled_from(NAMES), TREES, max_size=3),
    ),
    st.builds(
        lambda steps: {"apiVersion": jobfields.API_VERSION, "name": "x", "kind": "Pipeline", "steps": steps},
        st.lists(STEPS, max_size=3),
    ),
    st.dictionaries(st.sampled_from(NAMES), TREES),
)


VALIDATOR = Draft202012Validator(schema())


def without_nulls(tree):
    """Editors flag a field without a value; ``read`` takes it as left out."""
    if isinstance(tree, list):
        return [without_nulls(item) for item in tree]
    if isinstance(tree, dict):
        return {name: without_nulls(item) for name, item in tree.items() if item is not None}
    return tree


@given(FILES)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mapping_is_read_or_refused(studio, tree):
    for name in ("shot.blend", "take.mov", "shot.0001.png"):
        studio.file(name)
    draft, problems = None, ()
    try:
        draft = studio.read(json.dumps(tree))
    except InvalidInput as refusal:
        problems = refusal.problems
    assert bool(draft) != bool(problems)
    assert all(problem.message for problem in problems)
    if draft is not None:
        every_task_can_be_planned(draft, tree)


def every_task_can_be_planned(draft, tree):
    assert not sorted(map(str, VALIDATOR.iter_errors(without_nulls(tree)))), "an editor would refuse a good file"
    job = draft.job("j1", "r")
    assert codec.loads(Job, codec.dumps(job)) == job
    for step in job.steps:
        assert draft.pointer(step.name, "card").endswith("resources.accelerators")
        for index in {0, step.count - 1}:
            made = order(job, step, index, 1)
            assert "${job." not in made.output_dir
