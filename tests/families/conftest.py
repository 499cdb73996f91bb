from collections.abc import Callable
from pathlib import Path

import pytest

from tests.families import tiny_wan


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory) -> Callable[[tiny_wan.Variant], Path]:
    """Builds each variant's folder once."""
    root = tmp_path_factory.mktemp("wan")

    def folder(variant: tiny_wan.Variant) -> Path:
        path = root / variant
        return path if path.exists() else tiny_wan.build(path, variant)

    return folder
