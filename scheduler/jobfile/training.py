"""What a TRAIN step runs: a script or a module, with a Python that has torch."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipelines.command import ANY_OUTPUT
from pipelines.train import TrainSpec
from scheduler.jobfile import kinds, paths
from scheduler.jobfile.context import Context, Entry
from scheduler.jobfile.quantity import Malformed

SYSTEM = ("/usr/bin/", "/usr/local/bin/", "/bin/")
"""Every runner may see what lies there."""


def train(context: Context, entry: Entry) -> TrainSpec:
    """The step's spec; problems go into the context."""
    body = entry.body
    assert isinstance(body, kinds.TrainStep | kinds.TrainJob)
    script, python, output_dir = "", "", ""
    reads: tuple[str, ...] = ()
    args: list[str] = []
    env: dict[str, str] = {}
    with context.at(entry.at("script")):
        unread = {entry.at("script"), entry.at("module")}.intersection(p.pointer for p in context.problems)
        script = "" if unread else _script(context, body)
        reads += (paths.parent(script),) if script else ()
    with context.at(entry.at("python")):
        python, more = _python(context, body.python or "")
        reads += more
    for at, word in enumerate(body.args):
        with context.at(f"{entry.at('args')}[{at}]"):
            args.append(context.text(word))
    for name, value in sorted(body.env.items()):
        with context.at(f"{entry.at('env')}.{name}"):
            env[name] = context.text(value)
    with context.at(entry.at("outputs")):
        output_dir = context.output_path(entry)
    return TrainSpec(
        script=script,
        module=body.module or "",
        args=tuple(args),
        env=tuple(env.items()),
        python=python,
        processes=body.processes_per_node or 0,
        output_dir=output_dir,
        output_files=tuple(body.output_files) or ANY_OUTPUT,
        reads=(*dict.fromkeys(reads), *context.reads(entry)),
    )


def _script(context: Context, body: kinds.TrainStep | kinds.TrainJob) -> str:
    if (body.script is None) == (body.module is None):
        raise Malformed("say what to train: either script or module")
    if body.script is None:
        return ""
    found = context.input(body.script)
    if not found.path.endswith(".py"):
        raise Malformed(f"{body.script!r} is not a Python file")
    return found.path if found.step else paths.existing_file(found.path, body.script)


def _python(context: Context, text: str) -> tuple[str, tuple[str, ...]]:
    """The interpreter, and the environment it lies in, which it must be able to read.

    The last component is not resolved: a virtual environment's ``bin/python`` is a link to another Python.
    """
    if not text or text.startswith(SYSTEM):
        return text, ()
    if paths.is_object(text):
        raise Malformed(f"{text!r}: a Python must lie in a folder that the nodes see", (SYSTEM[0] + "python3",))
    where = PurePosixPath(text)
    folder = context.input(str(where.parent))
    path = f"{folder.path}/{where.name}"
    if folder.step:
        raise Malformed(f"{text!r}: a Python must be there before the job is submitted")
    paths.existing_file(path, text)
    home = PurePosixPath(folder.path)
    return path, (str(home.parent if home.name == "bin" else home),)
