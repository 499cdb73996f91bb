import pytest

from tests.hardness.commands import server


@pytest.fixture(scope="session")
def commands():
    with server() as started:
        yield started


@pytest.fixture(scope="session")
def finished(commands, tmp_path_factory):
    """An undisturbed run of the tiny recipe; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    commands.run(["run", "tests.hardness.tiny", "--workers", "1", "--out", folder])
    return folder
