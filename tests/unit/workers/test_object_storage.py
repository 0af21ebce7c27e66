"""What an S3-compatible store must stand beside the contract: zombies, lost answers, faults, large files."""

import os

import pytest

from scheduler.model.errors import OutputMissing, StorageError
from workers import objects
from workers.object_storage import ObjectStorage
from workers.objects import Changed, Objects, connect, place_of
from workers.storage import open_storage

TASK = "j1.s.0@9"


@pytest.fixture
def root(bucket):
    return f"s3://{bucket.name}/studio"


@pytest.fixture
def out(root):
    return f"{root}/film"


def files(folder, **texts):
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return str(folder)


def texts(bucket):
    return bucket.texts("studio/film/", hidden=False)


def own_store(root):
    """A store with a client of its own, as another node has."""
    client = objects._connect.__wrapped__(("",) * 5)
    return ObjectStorage(client, (root,)), client._client


class Pause:
    """Before request ``at`` of a client, do something else first."""

    def __init__(self, client, at, then):
        self.left, self.then = at, then
        client.meta.events.register("before-send.s3", self)

    def __call__(self, **_):
        self.left -= 1
        if self.left == -1:
            self.then()


def test_a_zombie_that_wakes_at_any_moment_changes_nothing_of_a_later_attempt(bucket, root, out, tmp_path):
    """It sleeps before each of its requests in turn, while a later attempt makes the task again from begin to end."""
    old, new = files(tmp_path / "old", a="old a", b="old b", c="old"), files(tmp_path / "new", a="new a", b="new b")
    later, _ = own_store(root)
    ends = []
    for at in range(200):
        task = f"j1.s.{at}@9"
        zombie, client = own_store(root)
        zombie.claim(out, task, 1)

        def wake(task=task):
            later.claim(out, task, 2)
            later.publish(new, ("*",), out, task, 2, replace=True)

        pause = Pause(client, at, wake)
        try:
            zombie.publish(old, ("a", "b"), out, task, 1)
            ends.append("ended")
        except StorageError as refused:
            ends.append(type(refused).__name__)
        if pause.left >= 0:
            break
        assert texts(bucket) == {"a": "new a", "b": "new b"}, at
        assert later.published(out, task).number == 2
    assert at > 12
    # What it had staged may be swept away under it (StorageError): that, too, ends it.
    assert set(ends) == {"ended", "Fenced", "StorageError"}


def test_a_write_whose_answer_was_lost_is_not_taken_for_somebody_elses(s3_env, bucket, root, out, tmp_path):
    storage = open_storage(out, (root,))
    staged = files(tmp_path / "w", a="x")
    s3_env.fail(1, code="Lost", status=500, method="PUT", path=f"{TASK}.json")
    assert storage.claim(out, TASK, 1) is None
    s3_env.fail(1, code="Lost", status=500, method="PUT", path=f"{TASK}.json")
    assert storage.publish(staged, ("*",), out, TASK, 1).number == 1
    s3_env.fail(1, code="Lost", status=500, method="DELETE", path="film/.shisuan")
    assert storage.publish(files(tmp_path / "w2", a="y"), ("*",), out, TASK, 2, replace=True).number == 2
    assert texts(bucket) == {"a": "y"}


def test_slow_down_is_waited_out_and_has_an_end(s3_env, bucket, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    place = place_of(f"s3://{bucket.name}/x")
    s3_env.fail(3)
    assert connect().head(place) is None
    before = len(s3_env.asked())
    s3_env.fail(1_000, path=bucket.name)
    try:
        with pytest.raises(StorageError, match=r"still says to slow down after 8 tries of list s3://"):
            list(connect().below(place))
    finally:
        s3_env.fail(0)
    assert len(s3_env.asked()) - before == objects.ATTEMPTS


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("AccessDenied", 403, "the agent's credentials may not write s3://"),
        ("InvalidAccessKeyId", 403, "does not know the agent's AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY does not fit"),
        ("Weird", 400, "refused to write s3://"),
    ],
)
def test_refusals_are_told_in_a_users_words(s3_env, root, code, status, says):
    out = f"{root}/film"
    s3_env.fail(1, code=code, status=status, method="PUT")
    with pytest.raises(StorageError, match=says):
        open_storage(out, (root,)).claim(out, TASK, 1)


def test_a_bucket_that_is_not_there_is_named(bucket):
    with pytest.raises(StorageError, match="there is no bucket 'nowhere'"):
        open_storage("s3://nowhere/x", ("s3://nowhere",)).claim("s3://nowhere/x", TASK, 1)


def test_without_credentials_or_server_it_says_so(bucket, root, out, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"could not write s3://.*127\.0\.0\.1:9"):
        open_storage(out, (root,)).claim(out, TASK, 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(StorageError, match="has no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_storage(out, (root,)).claim(out, TASK, 1)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(root, out, header):
    _, client = own_store(root)

    def ignore(request, **_):
        if header in request.headers:
            del request.headers[header]

    client.meta.events.register("before-send.s3", ignore)
    with pytest.raises(StorageError, match=f"ignores {header}, so"):
        ObjectStorage(Objects(client), (root,)).claim(out, TASK, 1)


def test_large_files_go_in_parts(bucket, root, s3_env, tmp_path, monkeypatch):
    out = f"{root}/film"
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(objects, "COPY_BYTES", 5 << 20)
    (tmp_path / "w").mkdir()
    data = b"frame" * (2 << 20) + b"end"
    (tmp_path / "w" / "film.mov").write_bytes(data)
    storage = open_storage(out, (root,))
    first = storage.publish(str(tmp_path / "w"), ("film.mov",), out, TASK, 1)
    assert storage.published(out, TASK) == first
    assert bucket.texts("studio/film/film.mov")[""] == data.decode()
    asked = [line for line in s3_env.asked() if "partNumber=3" in line]
    assert [line.partition("?")[0].rpartition("/")[2] == "film.mov" for line in asked] == [False, True]
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


def test_an_output_that_changes_while_it_goes_up_is_not_published(bucket, root, out, tmp_path):
    staged = files(tmp_path / "w", a="before")
    storage, client = own_store(root)
    client.meta.events.register(
        "before-send.s3",
        lambda request, **_: (tmp_path / "w/a").write_text("after!") and None if ".a1/" in request.url else None,
    )
    with pytest.raises((OutputMissing, StorageError)):
        storage.publish(staged, ("a",), out, TASK, 1)
    assert texts(bucket) == {}


def test_two_names_of_one_content(bucket, root, out, tmp_path):
    storage = open_storage(out, (root,))
    manifest = storage.publish(files(tmp_path / "w", a="same", b="same"), ("*",), out, TASK, 1)
    assert texts(bucket) == {"a": "same", "b": "same"}
    assert storage.claim(out, TASK, 2) == manifest


def test_a_damaged_state_is_told_and_not_overwritten(bucket, root, out):
    bucket.put(f"studio/film/.shisuan/{TASK}.json", "{")
    with pytest.raises(StorageError, match="is damaged"):
        open_storage(out, (root,)).claim(out, TASK, 1)


@pytest.mark.parametrize("uri", ["s3://b//x", "s3://b/a/../x", "s3://b/./x", "s3:///x", "http://b/x", "s3://b/\0"])
def test_uris_that_name_no_place(uri):
    with pytest.raises(StorageError):
        place_of(uri)


def test_conditions_bind_writes(bucket):
    store, place = connect(), place_of(f"s3://{bucket.name}/x")
    first = store.write(place, b"1", over="")
    for over in ("", '"other"'):
        with pytest.raises(Changed):
            store.write(place, b"2", over=over)
    store.write(place, b"3", over=first)
    assert store.read(place)[0] == b"3"
    store.remove(place)
    with pytest.raises(Changed, match="taken away"):
        store.write(place, b"4", over=first)
