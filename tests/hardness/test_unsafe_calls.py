"""Nothing that somebody gives is ever run: no file is unpickled, no shell started, no text evaluated."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import videogpa

PACKAGE = Path(videogpa.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
WORKERS = ("engines/local.py", "engines/ray.py")
"""Here alone, between processes of one run, are jobs and results pickled; nothing of it comes from a file."""
NEVER = {
    "eval", "exec", "os.popen", "os.system", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "marshal.load",
    "marshal.loads", "shelve.open", "joblib.load", "numpy.loadtxt", "pickle.load", "pickle.Unpickler", "dill.load",
}  # fmt: skip
UNLESS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", None),
    "numpy.load": ("allow_pickle", None),
}
"""Calls that are safe with this value of an option; None: with the option left out."""


def unsafe(tree: ast.AST, pickles: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {option.arg: option.value for option in node.keywords}
        given = {
            key: value.value if isinstance(value, ast.Constant) else ... for key, value in options.items()
        }
        if name in NEVER or (name == "pickle.loads" and not pickles):
            yield f"line {node.lineno}: {name}"
        if name in UNLESS and given.get(UNLESS[name][0]) is not UNLESS[name][1]:
            yield f"line {node.lineno}: {name} with {given}"
        for option in ("shell", "trust_remote_code"):
            if given.get(option, False) is not False:
                yield f"line {node.lineno}: {name}({option}={given[option]})"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_given_is_run(path):
    pickles = path.relative_to(PACKAGE).as_posix() in WORKERS
    assert not list(unsafe(ast.parse(path.read_text()), pickles))


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.loads(content)",
        "np.load(path, allow_pickle=True)", "subprocess.run(line, shell=True)", "yaml.load(text, Loader)",
        "Model.from_pretrained(path, trust_remote_code=asked)",
    ],
)  # fmt: skip
def test_what_would_run_it_is_noticed(line):
    assert list(unsafe(ast.parse(line), pickles=False))
