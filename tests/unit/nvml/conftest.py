"""Machines played by the NVML stub."""

import pytest

from tests.nvml_stub.stub import Machine, compile_stub


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory):
    return compile_stub(tmp_path_factory.mktemp("old-nvml"), old_driver=True)


@pytest.fixture
def machine(library, tmp_path):
    """``machine(cards)``: a machine with these cards, ended with the test."""
    made = []

    def make(cards, library=library):
        made.append(Machine(library, tmp_path, cards))
        return made[-1]

    yield make
    for each in made:
        each.close()
