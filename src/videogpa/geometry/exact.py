"""The procedural world's own geometry behind the contract of the geometry models: for tests and oracles."""

from videogpa.errors import InputError
from videogpa.geometry.base import GeometryPrediction
from videogpa.tensors import Video
from videogpa.world.render import Render
from videogpa.world.truth import exact_geometry

LICENSE = "no weights"
SCALE = "metric"
PREDICTS = ("depth", "poses", "normals", "albedo", "confidence")
NEEDS = ()


def from_render(clip: Render, images: Video | None = None) -> GeometryPrediction:
    """Ground truth with confidence 1, in metres, judged on the clip's own frames or on `images` [t 3 h w].

    Raises:
        InputError: `images` has another shape than the clip.
    """
    images = clip.rgb if images is None else images
    if images.shape != clip.rgb.shape:
        raise InputError(
            f"frames {tuple(images.shape)} do not fit a true clip of {tuple(clip.rgb.shape)}; "
            "give as many frames, of the same size, as the scene was rendered with"
        )
    return exact_geometry(clip, images)


class Backend:
    """Answers every clip with the geometry of one rendered scene."""

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale = "metric"

    def __init__(self, clip: Render):
        self.clip = clip

    def predict(self, frames: Video) -> GeometryPrediction:
        """The scene's geometry with `frames` as images.

        Raises:
            InputError: the frames have another shape than the scene's clip.
        """
        return from_render(self.clip, frames)
