"""The configuration file's queues and the section ``scheduling``: exact amounts, and mistakes that point."""

import re
from pathlib import Path

import pytest
import yaml

from scheduler.control import terms
from scheduler.control.bootstrap import Config, read_config
from scheduler.model.errors import InvalidInput
from scheduler.model.policy import Backfill, Band, Floor, Policy, Preemption, Sort
from scheduler.model.queue import UNLIMITED

ROOT = Path(__file__).parents[3]


def read(text):
    return Config.model_validate(yaml.load(text, terms.Loader))


def refusal(tmp_path, text):
    file = tmp_path / "park.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_config(str(file))
    return str(caught.value)


def a_queue(text):
    [found] = read(f"queues: [{{name: film, {text}}}]").queues
    return found.queue(found.name)


def test_amounts_are_written_as_in_job_files():
    queue = a_queue("guaranteed: {cards: 8, cpus: 64, memory: 1TiB}, limit: {cards: 0.5}, jobs_max: 3")
    assert queue.guaranteed == (64_000, 1_048_576, 8_000, 0)
    assert queue.limit == (-1, -1, 500, -1)
    assert queue.lends == UNLIMITED
    assert queue.jobs_max == 3
    assert a_queue("limit: {mig: 7, memory: 2PB, cpus: 0}").limit == (0, 2 << 30, -1, 7_000)
    assert a_queue("limit: {memory: 512MiB}").limit == (-1, 512, -1, -1)
    assert a_queue("lends: {memory: 0}").lends == (-1, 0, -1, -1)
    assert a_queue("weight: 7").limit == UNLIMITED


def test_without_the_section_the_policy_is_the_default_one():
    assert read("{}").scheduling.policy() == Policy()


def test_every_knob():
    policy = read("""
scheduling:
  sort: deadline
  backfill: conservative
  preemption: never
  preempt_gap: 10
  preempted_max: 2
  reservations: 3
  usage_weight: 2.5
  node_mtbf: 400h
  age_gain: 12h
  age_gain_max: 9
  defragment: 2.5
  recut: 30m
  floors: {RenderJob: 20%, TranscodeJob: 2.5%}
  bands: {valley: "23:00-07:00", day: 09:00-17:30, always: "00:00-24:00"}
  licences: {nuke: 4, houdini: 8}
""").scheduling.policy()
    assert policy == Policy(
        sort=Sort.DEADLINE,
        backfill=Backfill.CONSERVATIVE,
        preemption=Preemption.NEVER,
        preempt_gap=10,
        preempted_max=2,
        reservations_max=3,
        usage_weight_permille=2_500,
        node_mtbf_ms=400 * 3_600_000,
        age_gain_ms=12 * 3_600_000,
        age_gain_max=9,
        defragment_permille=2_500,
        recut_every_ms=30 * 60_000,
        floors=(Floor(kind="RenderJob", permille=200), Floor(kind="TranscodeJob", permille=25)),
        bands=(
            Band(name="always", start_minute=0, end_minute=0),
            Band(name="day", start_minute=540, end_minute=1_050),
            Band(name="valley", start_minute=1_380, end_minute=420),
        ),
        licences=(("houdini", 8), ("nuke", 4)),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scheduling: {srot: age}", "scheduling.srot: unknown field 'srot'; did you mean 'sort'? (valid: age_gain"),
        ("scheduling: {sort: oldest}", "scheduling.sort: Input should be 'age', 'deadline', 'expected' or 'served'"),
        ("scheduling: {backfill: yes}", "scheduling.backfill: Input should be 'any', 'easy', 'conservative' or 'none'"),
        ("scheduling: {floors: {RenderJobs: 5%}}", "scheduling.floors.RenderJobs: unknown kind of job 'RenderJobs'"),
        ("scheduling: {floors: {RenderJobs: 5%}}", "did you mean 'RenderJob'? (valid: CommandJob, Pipeline, RenderJob"),
        ("scheduling: {floors: {RenderJob: 20}}", "scheduling.floors.RenderJob: 20 is not a share such as 20%"),
        ("scheduling: {floors: {RenderJob: 60%, TrainJob: 50%}}", "scheduling: floors add up to 110%"),
        (
            "scheduling: {defragment: 0.5}",
            "scheduling.defragment: must be never, or how many times what is lost must be",
        ),
        ("scheduling: {recut: 10s}", "scheduling.recut: must be never, or a time of at least a minute such as 30m"),
        ("scheduling: {recut: 0}", "scheduling.recut: must be never, or a time of at least a minute such as 30m"),
        ("scheduling: {defragment: always}", "scheduling.defragment: must be never, or how many"),
        ("tenants: [{name: a, budget: -1}]", "tenants[0].budget: must be 0 to"),
        ("scheduling: {bands: {valley: 23-7}}", "scheduling.bands.valley: must be two times of the day at UTC+8"),
        ("scheduling: {bands: {valley: '07:00-07:00'}}", "scheduling.bands.valley: '07:00-07:00' must end at another"),
        ("scheduling: {bands: {Valley: '07:00-09:00'}}", "scheduling.bands.Valley: 'Valley' must be lower-case"),
        ("scheduling: {licences: {nuke: -1}}", "scheduling.licences.nuke: Input should be greater than or equal to 0"),
        ("scheduling: {usage_weight: much}", "scheduling.usage_weight: must be a number of times from 0 to 1,000"),
        ("scheduling: {age_gain: often}", "scheduling.age_gain: must be a duration such as 90s"),
        (
            "queues: [{name: a, garanteed: {}}]",
            "queues[0].garanteed: unknown field 'garanteed'; did you mean 'guaranteed'",
        ),
        ("queues: [{name: a, limit: {gpus: 8}}]", "queues[0].limit.gpus: unknown field 'gpus'"),
        ("queues: [{name: a, limit: {cards: many}}]", "queues[0].limit.cards: must be a number of cards from 0"),
        ("queues: [{name: a, limit: {cards: true}}]", "queues[0].limit.cards: must be a number of cards from 0"),
        ("queues: [{name: a, limit: {memory: 5 bananas}}]", "queues[0].limit.memory: must be a size such as 8GiB"),
        ("queues: [{name: a, jobs_max: -1}]", "queues[0].jobs_max: Input should be greater"),
    ],
)
def test_a_mistake_points_at_its_field_and_says_what_is_valid(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_the_documented_section_is_accepted():
    guide = (ROOT / "docs" / "operating.md").read_text("utf-8")
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "scheduling:" in text]
    config = read(block)
    assert config.scheduling.policy() != Policy()
    assert any(any(queue.queue(queue.name).guaranteed) for queue in config.queues)
