"""Every annotated shape and type of the package is checked at run time while the tests run."""

from importlib import import_module

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.browser import CHROMIUM

# Before anything imports videogpa: only modules imported from here on are checked.
install_import_hook("videogpa", "beartype.beartype")

# A shared machine is slow at times; no test of this project is about time.
settings.register_profile("videogpa", deadline=None, derandomize=True)
settings.load_profile("videogpa")


def pytest_collectstart() -> None:
    """Load the large libraries before the package does, in processes that run tests.

    What a hooked module is the first to import is compiled anew every time: while such a module loads, bytecode
    is looked for under the hook's own name.
    """
    for library in (
        "diffusers.pipelines.wan.pipeline_wan_i2v",
        "kornia",
        "matplotlib.figure",
        "peft",
        "scipy.optimize",
        "torch.utils.tensorboard",
    ):
        import_module(library)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs take longest: they start first, so that the others fill the time beside them."""
    items.sort(key=lambda item: item.path.name not in ("test_run.py", "test_examples.py"))


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium (`tests/browser.py`)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
