from pathlib import Path

import pytest

from scheduler.jobfile import Draft, read
from scheduler.model.errors import InvalidInput
from scheduler.model.queue import Queue, Tenant

NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z
MODELS = ("A100-PCIE-40GB", "A100-SXM-80GB", "H100-PCIE-80GB", "H100-SXM-80GB", "L40S", "RTX-4090")


class Studio:
    """A tenant with two roots: where its outputs go, and where its job files and inputs lie."""

    def __init__(self, folder: Path) -> None:
        self.home, self.films = folder / "home", folder / "films"
        for root in (self.home, self.films):
            root.mkdir()
        self.tenant = Tenant(
            name="studio", queues=("day", "night", "gone"), storage_roots=(str(self.home), str(self.films))
        )

    def file(self, name: str) -> Path:
        path = self.films / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def frames(self, pattern: str, numbers: range) -> None:
        for number in numbers:
            self.file(pattern.format(number))

    def read(self, text: str | bytes, **changed: object) -> Draft:
        facts = {
            "tenant": self.tenant,
            "queues": (Queue(name="day"), Queue(name="night"), Queue(name="others")),
            "base_dir": str(self.films),
            "now_ms": NOW_MS,
            "models": MODELS,
        }
        return read(text, **(facts | changed))

    def refusal(self, text: str | bytes, **changed: object) -> str:
        """The text a user sees, with the temporary folders' names taken out."""
        with pytest.raises(InvalidInput) as caught:
            self.read(text, **changed)
        return str(caught.value).replace(str(self.home), "/home").replace(str(self.films), "/films")


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path.resolve())
