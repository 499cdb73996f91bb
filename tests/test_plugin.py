import sys

import pytest

from videogpa import plugin
from videogpa.errors import InputError


def test_the_file_name_is_the_plugin_name(tmp_path, monkeypatch):
    import videogpa.recipes

    (tmp_path / "freshly_added.py").write_text("recipe = 42\n")
    monkeypatch.setattr(videogpa.recipes, "__path__", [*videogpa.recipes.__path__, str(tmp_path)])
    assert "freshly_added" in plugin.available("recipes")
    assert plugin.load("recipes", "freshly_added").recipe == 42


@pytest.mark.parametrize("kind", ["families", "geometry", "metrics", "recipes", "export"])
def test_listing_imports_nothing_and_leaves_shared_modules_out(kind):
    before = set(sys.modules)
    names = plugin.available(kind)
    assert names == sorted(set(names) - plugin.SHARED_MODULES[kind])
    assert {name for name in set(sys.modules) - before if name.startswith(f"videogpa.{kind}.")} == set()


def test_declarations_are_read_without_importing():
    before = set(sys.modules)
    says = plugin.declared("geometry", "depth_anything_3")
    assert says["LICENSES"]["giant"] == "CC-BY-NC-4.0"
    assert says["NEEDS"][0] == "depth_anything_3"
    assert "videogpa.geometry.depth_anything_3" not in set(sys.modules) - before


def test_installed_asks_for_every_module():
    assert plugin.installed(["json", "torch"])
    assert not plugin.installed(["json", "no_such_module_anywhere"])


def test_a_dotted_path_loads_any_module(tmp_path, monkeypatch):
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "metric.py").write_text("measure, HIGHER_IS_BETTER = len, True\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugin.load("metrics", "their_package.metric").HIGHER_IS_BETTER


def test_unknown_and_broken_plugins_are_input_errors(tmp_path, monkeypatch):
    (tmp_path / "broken_plugin_package").mkdir()
    (tmp_path / "broken_plugin_package" / "metric.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="no metrics plug-in named 'nonsense'; choose from: "):
        plugin.load("metrics", "nonsense")
    with pytest.raises(InputError, match=r"cannot import metrics plug-in .*no_such_module_anywhere"):
        plugin.load("metrics", "broken_plugin_package.metric")
    with pytest.raises(InputError, match="cannot import"):
        plugin.load("metrics", "no_such_package.metric")
    with pytest.raises(
        InputError, match=r"the module 'json\.tool' is no recipes plug-in: it has no 'recipe'"
    ):
        plugin.load("recipes", "json.tool")
    for path in ("../sharpness", ".sharpness", "videogpa..metrics", "a b.c"):
        with pytest.raises(InputError, match="no metrics plug-in named"):
            plugin.load("metrics", path)
