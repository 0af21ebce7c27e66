import os

from scheduler.model.node import Device, Node
from workers import ray_head
from workers.ray_head import RayHead, clean_environ, temp_dir


def test_agents_see_the_storages_credentials_and_none_of_the_service(monkeypatch):
    monkeypatch.setenv("SHISUAN_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the storage")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("PYTHONPATH", "/decoy")
    assert "secret" not in "".join(clean_environ().values())
    assert clean_environ().keys().isdisjoint({"RAY_ADDRESS", "PYTHONPATH"})
    assert clean_environ()["AWS_SECRET_ACCESS_KEY"] == "of the storage"
    assert clean_environ()["PATH"] == os.environ["PATH"]


def test_sockets_fit_into_the_path_limit_wherever_the_home_lies(tmp_path):
    deep = tmp_path / ("x" * 200)
    socket_path = f"{temp_dir(deep)}/session_2026-11-22_20-05-40_978535_4194304/sockets/plasma_store"
    assert len(socket_path) < 107
    assert temp_dir(deep) != temp_dir(tmp_path)


def test_a_token_is_made_once_and_is_private(tmp_path):
    head = RayHead(tmp_path)
    path = head.environ()["RAY_AUTH_TOKEN_PATH"]
    token = (tmp_path / "ray.token").read_text()
    assert path == str(tmp_path / "ray.token")
    assert (tmp_path / "ray.token").stat().st_mode & 0o777 == 0o600
    assert RayHead(tmp_path).environ()["RAY_AUTH_TOKEN_PATH"] == path
    assert (tmp_path / "ray.token").read_text() == token


def test_only_real_cards_count_as_gpus_and_each_card_has_a_name():
    devices = (
        Device(id="GPU-1", model="L40S", index=0),
        Device(id="SIM-1", model="L40S", index=1, simulated=True),
    )
    node = Node(name="a", cpu_milli=1_000, memory_mib=1, devices=devices)
    plan = ray_head._node_plan(node)
    assert plan["gpus"] == 1
    assert plan["resources"] == {"gpu0": 1, "gpu1": 1}
    assert plan["labels"] == {"shisuan/node": "a"}


def test_a_home_that_never_ran_has_nothing_to_adopt_or_to_end(tmp_path):
    head = RayHead(tmp_path, [Node(name="a", cpu_milli=1_000, memory_mib=1)])
    assert not head.adopt()
    assert not head.remove()


def test_a_damaged_record_is_passed_over(tmp_path):
    (tmp_path / "ray.json").write_text("{not json")
    assert not RayHead(tmp_path).adopt()
    (tmp_path / "ray.json").write_text('{"shape": []}')
    assert not RayHead(tmp_path).adopt()


def test_another_processes_pid_is_not_taken_for_ours(tmp_path):
    process = ray_head.Process.of(os.getpid())
    assert process.runs()
    assert not ray_head.Process(pid=process.pid, ticks=process.ticks + 1).runs()
    assert not ray_head.Process(pid=0, ticks=0).runs()
