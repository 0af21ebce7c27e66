"""SHELL. Job files: pydantic schema, errors that point, planning into the model.

``read`` is the one door for the API and the CLI; ``command`` writes the file that ``submit -- CMD`` stands for;
``schema`` is what editors complete and check against.
"""

from scheduler.jobfile.command import command
from scheduler.jobfile.draft import Draft, read
from scheduler.jobfile.schema import schema

__all__ = ["Draft", "command", "read", "schema"]
