"""What the checks after the schema share: tenant, roots, the steps by name, and the list of problems they fill."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipelines.request import TASK_INDEX
from scheduler.jobfile import kinds, paths, references
from scheduler.jobfile.quantity import Malformed
from scheduler.model.errors import Problem

Body = (
    kinds.CommandStep
    | kinds.RenderStep
    | kinds.TranscodeStep
    | kinds.TrainStep
    | kinds.CommandJob
    | kinds.RenderJob
    | kinds.TranscodeJob
    | kinds.TrainJob
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A step as the file has it. A single-kind job is one entry whose fields lie at the top of the file."""

    name: str
    place: str
    """Pointer of its mapping; empty at the top."""
    body: Body
    needs: tuple[str, ...] = ()
    """Own and implied ones, in order of mention."""

    def at(self, name: str) -> str:
        """Pointer of one of its fields."""
        return f"{self.place}.{name}" if self.place else name


@dataclass(frozen=True, slots=True)
class Found:
    """An input: its absolute path, and the step that makes it (empty: it is there already)."""

    path: str
    step: str = ""


@dataclass(slots=True, kw_only=True)
class Context:
    """One reading of one file."""

    job_name: str
    roots_written: tuple[str, ...]
    base_dir: str
    outputs: str = ""
    """The Pipeline's own ``outputs``."""
    models: Collection[str]
    has_cards: bool
    licences: Mapping[str, int] | None = None
    """Seats the park has of each; None: any name goes."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def roots(self) -> paths.Roots:
        """The tenant's roots. Raises Malformed when it has none."""
        return paths.Roots.of(self.roots_written, self.base_dir)

    @property
    def base(self) -> str:
        """Start of file names that are not given: the job's name without what file systems dislike."""
        safe = re.sub(r"[^\w.-]+", "-", self.job_name).strip("-.") or "film"
        # 255 bytes is what file systems take for a name; ".00000001.exr" follows.
        return safe.encode()[:200].decode(errors="ignore")

    @contextmanager
    def at(self, pointer: str) -> Iterator[None]:
        """Turns a Malformed into a Problem at ``pointer`` and goes on after the block."""
        try:
            yield
        except Malformed as error:
            self.problems.append(Problem(pointer, str(error), error.choices, error.nearest))

    def output_path(self, entry: Entry) -> str:
        """Absolute path of what the step's ``outputs`` field names: a folder, or for films the file.

        May hold ``${job.id}``. Empty: the step publishes nothing. Raises Malformed.
        """
        body = entry.body
        text = body.outputs
        is_command = isinstance(body, kinds.CommandStep | kinds.CommandJob)
        if text is None:
            if self._publishes_nothing(entry):
                return ""
            text = self.default_output(entry.name)
            if isinstance(body, kinds.TranscodeStep | kinds.TranscodeJob):
                text += f"/{self.base}.mp4"
        return self._output(text, (references.JOB_ID, TASK_INDEX) if is_command else (references.JOB_ID,))

    def automatic_output(self, step: str) -> str:
        """Absolute folder an automatic step (a scene's, a render's tiles) publishes into. Raises Malformed."""
        return self._output(self.default_output(step), (references.JOB_ID,))

    def _output(self, text: str, kept: tuple[str, ...]) -> str:
        references.strict(text)
        return self.roots.output(references.replace(text, {references.JOB_NAME: self.job_name}, None, kept=kept))

    def default_output(self, step: str) -> str:
        """Where a step publishes when the file does not say: relative to the first root."""
        return f"{self.outputs or f'jobs/{references.JOB_ID}'}/{step}"

    def _publishes_nothing(self, entry: Entry) -> bool:
        """A command that names no outputs, and whose outputs nobody names."""
        body = entry.body
        if not isinstance(body, kinds.CommandStep | kinds.CommandJob) or body.output_files or self.outputs:
            return False
        return not any(entry.name in mentions(other.body) for other in self.entries.values())

    def outputs_of(self, name: str) -> str:
        """What ``${steps.NAME.outputs}`` stands for. Raises Malformed."""
        if name not in self.entries:
            raise Malformed(f"there is no step {name!r}", tuple(sorted(self.entries)))
        found = self.output_path(self.entries[name])
        if TASK_INDEX in found:
            raise Malformed(f"the outputs of step {name!r} differ for each task ({TASK_INDEX}); write their path")
        return found

    def text(self, text: str) -> str:
        """A user's words with the references replaced that are known before the job has an id. Raises Malformed."""
        values = {references.JOB_NAME: self.job_name}
        if references.JOB_DIR in text:
            values[references.JOB_DIR] = self.roots.input(".")
        return references.replace(text, values, self.outputs_of, kept=(references.JOB_ID, TASK_INDEX))

    def input(self, text: str) -> Found:
        """Something to read, inside the roots; whoever knows what it is checks that it exists. Raises Malformed."""
        references.strict(text)
        steps = references.steps_in(text)
        if steps and not text.startswith(f"${{steps.{steps[0]}.outputs}}"):
            raise Malformed(f"{text!r}: ${{steps.{steps[0]}.outputs}} is an absolute path, so it must stand first")
        values = {references.JOB_NAME: self.job_name, references.JOB_DIR: self.roots.base_dir}
        path = self.roots.input(references.replace(text, values, self.outputs_of))
        return Found(path, steps[0] if steps else "")

    def reads(self, entry: Entry) -> tuple[str, ...]:
        """The ``inputs`` field: what the step reads beside what its other fields name."""
        found = []
        for at, text in enumerate(entry.body.inputs):
            with self.at(f"{entry.at('inputs')}[{at}]"):
                item = self.input(text)
                found.append(item.path if item.step else paths.existing(item.path, text))
        return tuple(found)


def mentions(body: Body) -> tuple[str, ...]:
    """Names of the steps whose outputs any text of ``body`` refers to, in order of the fields."""
    texts: list[str] = [*body.inputs]
    if isinstance(body, kinds.CommandStep | kinds.CommandJob):
        texts += [body.run] if isinstance(body.run, str) else body.run
        texts += body.env.values()
    elif isinstance(body, kinds.RenderStep | kinds.RenderJob):
        texts.append(body.scene if isinstance(body.scene, str) else body.scene.script)
    elif isinstance(body, kinds.TrainStep | kinds.TrainJob):
        texts += [body.script or "", body.python or "", *body.args, *body.env.values()]
    else:
        texts += [body.input, body.ocio or ""]
    return tuple(dict.fromkeys(name for text in texts for name in references.steps_in(text)))


def stem(path: str) -> str:
    """File name without folder and ending."""
    return PurePosixPath(path).stem
