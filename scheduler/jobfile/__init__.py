"""SHELL. Job files: pydantic schema, errors that point, planning into the model."""
