import json

import pytest
import torch

from videogpa import plugin
from videogpa.families.variants import license_of, variants_of

PUBLISHED = [
    (family, name, variant)
    for family in plugin.available("families")
    for name, variant in variants_of(family).items()
]


@pytest.mark.parametrize(("family", "name", "variant"), PUBLISHED, ids=lambda value: str(value))
def test_the_published_transformer_has_as_many_parameters_as_declared(family, name, variant):
    """Built from the published configuration without memory for its weights."""
    transformer = plugin.load("families", family).TRANSFORMER
    with torch.device("meta"):
        model = transformer(**variant.architecture)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(variant.parameters, rel=5e-3)
    assert set(variant.told_by) <= variant.architecture.keys()


def write(folder, pipeline, config, card=None):
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    if card:
        (folder / "README.md").write_text(card)
    return folder


def test_the_licence_follows_from_the_card_or_from_the_variant(tmp_path):
    two, five = (
        {"use_rotary_positional_embeddings": rotary, "patch_size_t": None} for rotary in (False, True)
    )
    pipeline = "CogVideoXPipeline"
    assert license_of("cogvideox", write(tmp_path / "2b", pipeline, two)) == "apache-2.0"
    assert license_of("cogvideox", write(tmp_path / "5b", pipeline, five)) == "cogvideox"
    card = "---\nlicense: mit\n---\n"
    assert license_of("cogvideox", write(tmp_path / "own", pipeline, five, card)) == "mit"
    assert license_of("wan", write(tmp_path / "wan", "WanPipeline", {})) == "apache-2.0"
    assert license_of("cogvideox", write(tmp_path / "other", "OtherPipeline", five)) == "unknown"
    assert license_of("cogvideox", tmp_path / "absent") == "unknown"


def test_a_third_partys_family_may_say_nothing(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert variants_of("videogpa.families.base") == {}
    assert license_of("videogpa.families.base", tmp_path) == "mit"
