"""Container build files. There is no Docker here: what can be read is checked, as a build would stumble over it."""

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "k8s" / "images"
FILES = sorted(IMAGES.glob("*.Dockerfile"))
SETUP = (ROOT / "bin" / "setup").read_text("utf-8")
RUNNER = "workers/blender_runner.py"
by_name = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)


def instructions(file):
    """``(word, rest)``, continuation lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", file.read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def said(file, word):
    return [rest for name, rest in instructions(file) if name == word]


def ignored(file):
    lines = file.with_name(f"{file.name}.dockerignore").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_there_are_four():
    assert [file.stem for file in FILES] == ["blender", "control-plane", "ffmpeg", "training"]


@by_name
def test_what_is_copied_is_there(file):
    sources = [word for rest in said(file, "COPY") if "--from" not in rest for word in rest.split()[:-1]]
    assert {"pyproject.toml", "requirements.lock", "scheduler", "workers", "pipelines"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored(file)), source
    made = {"/opt/shisuan", "/opt/training", "/opt/blender", "/opt/runner/blender_runner.py"}
    assert {rest.split()[1] for rest in said(file, "COPY") if "--from" in rest} <= made


@by_name
def test_versions_are_the_locks_and_the_set_ups(file):
    text = file.read_text("utf-8")
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    pinned |= {"uv": re.search(r"^uv_version=(\S+)", SETUP, re.MULTILINE)[1]}
    pinned |= {"torch": re.search(r"^torch_version=(\S+)", SETUP, re.MULTILINE)[1]}
    named = re.findall(r"\b([a-z0-9-]+)==([\w.]+)", text)
    assert named
    assert {name: version for name, version in named if pinned[name] != version} == {}
    assert re.search(r"requires-python = \">=(\d\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))[1] in text
    installs = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if "uv pip install" in line]
    loose = [line for line in installs if "--require-hashes" not in line and "torch==" not in line]
    assert [line for line in loose if "--no-deps" not in line] == []
    assert "uv build --wheel --require-hashes --build-constraints requirements.lock" in text


@by_name
def test_what_keeps_no_bytecode_comes_with_it(file):
    words = [(word, rest) for word, rest in instructions(file) if word in {"FROM", "ENV", "RUN"}]
    built, run = (at for at, (word, _) in enumerate(words) if word == "FROM")
    assert ("ENV", "UV_COMPILE_BYTECODE=1") in words[built : next(n for n, w in enumerate(words) if "uv pip" in w[1])]
    assert any("PYTHONDONTWRITEBYTECODE=1" in rest for word, rest in words[run:] if word == "ENV")


def test_bytecode_is_made_with_an_installation():
    (line,) = re.findall(r"^.venv/bin/python -P -m compileall (.+?) \\$", SETUP, re.MULTILINE)
    assert {".venv*/lib", "benchmarks", "k8s", "pipelines", "scheduler", "workers"} <= set(line.split())


@by_name
def test_nobody_in_it_is_root_and_its_base_is_named(file):
    assert said(file, "USER")[-1] == "10001:10001"
    (base,) = said(file, "ARG")
    assert re.fullmatch(r"BASE=python:3\.11-slim-\w+", base)
    assert {rest.split()[0] for rest in said(file, "FROM")} == {"${BASE}"}


def test_the_gpl_part_is_in_the_blender_image_only_and_told():
    for file in FILES:
        licences = re.search(r'image\.licenses="([^"]+)"', file.read_text("utf-8"))[1]
        if file.stem == "blender":
            assert RUNNER not in ignored(file)
            assert "/opt/runner/blender_runner.py" in file.read_text("utf-8")
            assert any("GPL-3.0-or-later.txt" in rest for rest in said(file, "COPY"))
            assert "GPL-3.0-or-later" in licences
        else:
            assert RUNNER in ignored(file), file.stem
            assert "requirements-blender.lock" not in file.read_text("utf-8")
            assert ("GPL" in licences) == (file.stem == "ffmpeg")  # for the program ffmpeg, not for a file of ours


def test_blender_gets_the_libraries_that_the_set_up_gives_it():
    packages = re.search(r'^packages="([^"$]+)"', SETUP, re.MULTILINE)[1].split()
    (line,) = (rest for rest in said(IMAGES / "blender.Dockerfile", "RUN") if "apt-get" in rest)
    assert set(packages) <= set(line.split())
