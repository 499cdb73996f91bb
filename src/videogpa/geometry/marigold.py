"""Albedo by Marigold's intrinsic decomposition (arXiv 2505.09358) on top of another model's depth and poses."""

from dataclasses import replace
from pathlib import Path

from diffusers import MarigoldIntrinsicsPipeline

from videogpa.errors import InputError
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.marigold_pipeline import load_pipeline, predict_frames
from videogpa.geometry.options import build
from videogpa.geometry.options import licenses as licenses_of
from videogpa.geometry.options import predicts as predicts_of
from videogpa.licenses import folder_license
from videogpa.tensors import Video

LICENSE = "that of the folder's model card"
SCALE = "either"
PREDICTS = ("depth", "poses", "albedo")
NEEDS = ()
WEIGHT_OPTIONS = ("weights", "base_weights")


def licenses(
    weights: Path, base: str = "sfm", base_weights: Path | None = None, **_: object
) -> dict[str, str]:
    """What the folder's model card says, and the licences of the base."""
    return licenses_of(base, _base_options(base_weights)) | {"marigold": folder_license(weights)}


def predicts(base: str = "sfm", base_weights: Path | None = None, **_: object) -> set[str] | None:
    """The albedo beside what the base gives; None where that does not say."""
    given = predicts_of(base, _base_options(base_weights))
    return None if given is None else given | {"albedo"}


class Backend:
    """Another backend's geometry with the albedo of its images.

    Args:
        weights: folder of a Marigold intrinsics pipeline; its appearance variant gives the cleaner albedo.
        base: the geometry model that gives depth and poses.
        base_weights: the base's option `weights`, where it needs one; its other options keep their defaults.
        steps: denoising steps.
        resolution: pixels of the longer side at which it works; 0 is the images' own size.
        seed: of the noise, the same for every frame.
        device: where the pipeline runs.

    Raises:
        InputError: the folder cannot be loaded, its pipeline gives no albedo, or the base cannot be had.
    """

    license = LICENSE
    needs: tuple[str, ...] = NEEDS

    def __init__(
        self,
        weights: Path,
        base: str = "sfm",
        base_weights: Path | None = None,
        steps: int = 4,
        resolution: int = 768,
        seed: int = 0,
        device: str = "cpu",
    ):
        self.pipeline = load_pipeline(MarigoldIntrinsicsPipeline, weights, device)
        names = (self.pipeline.target_properties or {}).get("target_names", [])
        if "albedo" not in names:
            raise InputError(f"the pipeline in '{weights}' predicts {names}, no albedo")
        self.target = names.index("albedo")
        self.base = build(base, _base_options(base_weights))
        self.scale = self.base.scale
        self.steps, self.resolution, self.seed = steps, resolution, seed

    def predict(self, frames: Video) -> GeometryPrediction:
        """The base's geometry; albedo in [0, 1] of the images it comes with, in the pipeline's own colour space.

        Raises:
            CannotJudge: the base cannot judge the clip.
        """
        geometry = self.base.predict(frames)
        maps = predict_frames(self.pipeline, geometry.images, self.steps, self.resolution, self.seed)
        return replace(geometry, albedo=maps[:, self.target])


def _base_options(weights: Path | None) -> dict[str, str]:
    return {} if weights is None else {"weights": str(weights)}
