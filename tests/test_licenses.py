import pytest

from videogpa.errors import InputError
from videogpa.licenses import folder_license, require_accepted


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: cc-by-nc-4.0\ntags:\n- depth\n---\n# A model", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: apple-ascl\n---\n", "apple-ascl"),
        ("---\nlicense: other\n---\n", "unknown"),
        ("# A model without front matter", "unknown"),
        ("---\nlicense: [a, b]\n---\n", "unknown"),
        ("---\n: [\n---\n", "unknown"),
    ],
)
def test_the_card_says_the_licence(tmp_path, card, license):
    (tmp_path / "README.md").write_text(card)
    assert folder_license(tmp_path) == license


def test_no_card_no_licence(tmp_path):
    assert folder_license(tmp_path) == "unknown"


def test_permissive_and_accepted_licences_pass():
    require_accepted({"a": "Apache-2.0", "b": "mit", "c": "no weights"}, [])
    require_accepted({"a": "CC-BY-NC-4.0", "b": "unknown"}, ["cc-by-nc-4.0", "unknown"])


@pytest.mark.parametrize("license", ["CC-BY-NC-4.0", "unknown", "apple-amlr"])
def test_others_are_refused_with_model_licence_and_flag(license):
    with pytest.raises(InputError, match=rf"weights of vggt .*--accept-license {license} "):
        require_accepted({"sfm": "no weights", "vggt": license}, ["GPL-3.0"])
