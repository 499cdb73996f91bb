"""Every annotated shape and type of the package is checked at run time while the tests run."""

import gc
import os
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

# Libraries bring a million objects that stay: looking through them again and again takes a twentieth of the time.
gc.disable()

# No test pulls the plug: what a killed process has written, the system keeps.
os.fsync = lambda descriptor: None


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


FIRST = ("test_run.py", "test_browser.py", "test_ray.py", "test_examples.py")
"""Long ones: others fill the time beside them. The browser leaves a core idle that whole runs can use."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """File by file, but all of `hardness` in one process, which makes one finished run for them."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/hardness" if nodeid.startswith("tests/hardness/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium (`tests/browser.py`)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
