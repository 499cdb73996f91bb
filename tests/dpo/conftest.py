from pathlib import Path

import pytest

from tests.families import tiny_wan
from videogpa.families.wan import Family


@pytest.fixture(scope="session")
def ti2v_folder(tmp_path_factory) -> Path:
    return tiny_wan.build(tmp_path_factory.mktemp("ti2v"))


@pytest.fixture
def family(ti2v_folder) -> Family:
    return Family(ti2v_folder)
