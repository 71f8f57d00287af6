"""From files to batches."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from mammodet.config.base import AtLeastOne, BelowOne, Count, NonNegative, Positive, Section, Share
from mammodet.records import fold_file

Channel = Literal["full", "tissue", "clahe", "gaussian", "mean", "laplacian"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)


class ImageConfig(Section):
    """From a file to the network's input."""

    #: Longest side of the network's input in pixels; smaller images are enlarged to it, the aspect is kept.
    max_size: Annotated[int, Field(ge=32, le=8192)] = 1024
    #: What is cropped away: everything but the `breast`, or `none`.
    crop: Literal["breast", "none"] = "breast"
    #: `left` flips images so that the chest wall always lies on the left.
    orient: Literal["none", "left"] = "none"
    #: `stretch` makes every image a square of `max_size` and loses its aspect, as many published classifiers do.
    aspect: Literal["keep", "stretch"] = "keep"
    #: One input channel each. `full`: the file's whole range; `tissue`: the 1st to 99.5th percentile of the breast;
    #: `clahe`: contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994); `gaussian`,
    #: `mean` and `laplacian`: `tissue` after that kernel of 5x5 pixels of the network's input.
    channels: list[Channel] = Field(default=["tissue"], min_length=1, max_length=8)


class AugmentConfig(Section):
    """Random changes in training; 0 turns one off."""

    #: Whether anything is changed at all.
    enabled: bool = True
    #: Probability of a left-right flip, and of an upside-down flip.
    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.0
    #: Largest turn in degrees, shift as a part of the side, and relative zoom, of one random affine map.
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    translate: BelowOne = 0.05
    zoom: BelowOne = 0.15
    #: Degrees between the turns that are drawn, as in `2`: -10, -8, ..., 10; 0 draws any angle.
    rotate_step: Annotated[float, Field(ge=0, le=180)] = 0.0
    #: Largest part of each side that a random crop cuts away; the rest is resized to the input's size.
    random_crop: BelowOne = 0.0
    #: Largest relative change of brightness and contrast, and standard deviation of noise on the scale [0, 1].
    brightness: Share = 0.15
    contrast: Share = 0.15
    noise: Share = 0.01
    #: Ends of the random zoom, as in `[0.7, 1.4]`, in place of `zoom`; null takes `zoom`.
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    #: Ends of a random factor on the aspect, width over height, as in `[0.7, 1.2]`; null keeps the aspect.
    stretch: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    #: Longest sides of the network's input, as in `[768, 896, 1024]`; each image takes one. Empty keeps `max_size`.
    sizes: list[Annotated[int, Field(ge=32, le=8192)]] = Field(default=[])
    #: Largest shift of a smooth random warp, as a part of the shorter side; the image's border stays.
    elastic: Annotated[float, Field(ge=0, le=0.04)] = 0.0
    #: Largest shift of either end of the grey range: `0.1` draws windows from [0.1, 0.9] to [-0.1, 1.1].
    window: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    #: Probability of a random S-shaped curve from grey to grey.
    tone_curve: Share = 0.0
    #: Random power of the grey values: `0.5` draws it from 1/1.5 to 1.5.
    gamma: NonNegative = 0.0
    #: Largest standard deviation of a Gaussian blur in pixels; half of the images stay sharp.
    blur: NonNegative = 0.0
    #: Most rectangles that are blanked out, and the largest part of each side that one takes. They cover less than half
    #: of any lesion.
    cutout: Count = 0
    cutout_size: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    #: Probability that the lesion of another training image is pasted into the breast.
    copy_paste: Share = 0.0
    #: Probability that another training image is laid over this one, with about equal weights.
    mixup: Share = 0.0

    @model_validator(mode="after")
    def _ends(self) -> Self:
        for name, ends in (("scale", self.scale), ("stretch", self.stretch)):
            if ends is not None and ends[0] > ends[1]:
                raise ValueError(f"augment.{name}={ends}: expected the lower end first")
        return self

    @property
    def mixes_images(self) -> bool:
        """Whether a sample can hold parts of several images."""
        return self.enabled and (self.copy_paste > 0 or self.mixup > 0)


class SamplingConfig(Section):
    """How often images of each class are drawn; by `target`, one of the questions that the model answers."""

    #: `all`: as often as they occur; `balanced`: every class equally often; `oversample`: the rarest class (of a label:
    #: the positive one) `factor` times as often as it occurs; `undersample`: every class equally often, in epochs no
    #: longer than the rarest class allows (the others are dropped, others each epoch).
    rule: Literal["all", "balanced", "oversample", "undersample"] = "all"
    #: Question whose classes are meant, for instance `tumor`; needed by every rule but `all`.
    target: str | None = None
    #: Of `oversample`.
    factor: Annotated[float, Field(ge=1, le=1000)] = 1.0
    #: Draw patients equally often, however many images they have: first a patient, then one of their images.
    per_patient: bool = False

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.rule != "all" and self.target is None:
            raise ValueError(f"sampling.rule={self.rule} needs sampling.target, for instance tumor")
        if self.rule == "oversample" and self.factor == 1:
            raise ValueError("sampling.rule=oversample needs sampling.factor above 1")
        if self.rule != "oversample" and self.factor != 1:
            raise ValueError(f"sampling.factor={self.factor:g} is for sampling.rule=oversample, not {self.rule}")
        return self


class DataFileConfig(Section):
    """One of several data set files; the path alone is short for `{file: path}`."""

    #: The JSON file, from `data.root`; its images are found from its own folder.
    file: str = Field(default=..., min_length=1)
    #: How often an image of this file is drawn in training, relative to an image of weight 1.
    weight: Positive = 1.0
    #: Own category to the common name; null makes its findings regions to ignore.
    categories: dict[str, Annotated[str, Field(min_length=1)] | None] = Field(default={})
    #: Stands before each patient id, for sets whose equal ids are different people; `''` says that ids which other
    #: sets have, too, are the same people.
    patient_prefix: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


#: One file under `root`, or a list of files.
DataFiles = Annotated[
    Annotated[str, Tag("(file)")] | Annotated[list[DataFileConfig], Field(min_length=1), Tag("(files)")],
    Discriminator(lambda value: "(files)" if isinstance(value, list | tuple) else "(file)"),
    BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
]


class PlacedFile(NamedTuple):
    """A data set file, the folder that its image names start from, and what the config says of it."""

    path: Path
    root: Path
    said: DataFileConfig


class DataConfig(Section):
    """Where the data are, and how batches are made of them."""

    #: Folder written by mammodet convert.
    root: Path = Path("data/mias")
    #: Number of the cross-validation fold, or null for the holdout split.
    fold: Count | None = None
    #: Files under `root` instead of those that `fold` chooses; a list joins several data sets
    #: (docs/several_data_sets.md).
    train: DataFiles | None = None
    val: DataFiles | None = None
    #: File under `root` that `--eval-only` evaluates on, whatever the fold.
    test: str | None = "test.json"
    #: File with a key: checkpoints and predictions hold HMAC-SHA256 hashes under it in place of patient ids, so that no
    #: id leaves, and leakage is still found where the same file is given (docs/leakage.md). null stores the ids.
    patient_key: Path | None = None
    #: Drop faulty records of the JSON files instead of refusing the file; what was dropped is listed.
    skip_invalid: bool = False
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    #: What a lesion of which only a box is known teaches a mask head: `none` refuses such a data set, `ellipse` fills
    #: the ellipse inside the box, `box` the box itself. The model card says so; agreement of outlines is scored on
    #: drawn contours alone.
    box_masks: Literal["none", "ellipse", "box"] = "none"
    #: Images per process and step.
    batch_size: AtLeastOne = 4
    #: Share of images without lesions in each batch; null keeps the data set's own.
    negative_fraction: Share | None = None
    #: How often images of each class are drawn.
    sampling: SamplingConfig = SamplingConfig()
    #: Images drawn per epoch; null means as many as there are. Checkpoints are written per epoch.
    epoch_size: AtLeastOne | None = None
    #: Processes that read and prepare images.
    num_workers: Count = 2
    #: Prepare every image (before augmentation) once, ahead of the first epoch, by `num_workers` processes: `disk`
    #: keeps them in `cache_dir` for all runs with the same `data.image`, `memory` for this run alone. Both take 4 bytes
    #: a pixel and channel (2 to 3 MB an image and channel at `max_size` 1024), and change no result.
    cache: Literal["none", "memory", "disk"] = "none"
    #: Folder of `cache: disk`; null means `.prepared` below `root`. Several runs may share it; it can be deleted.
    cache_dir: Path | None = None
    #: For the lesson of docs/leakage.md only, never for a result: `rotated_copies` splits turned copies of images at
    #: random, so that copies of one image lie in training, validation and test.
    unsafe_split: Literal["rotated_copies"] | None = None
    #: Copies of each image, turned by 360 degrees over their number, that `unsafe_split` makes.
    unsafe_copies: Annotated[int, Field(ge=2, le=360)] = 12

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.negative_fraction is not None and self.sampling.rule != "all":
            raise ValueError("data.negative_fraction and data.sampling.rule both choose what is drawn; leave one out")
        if self.unsafe_split is not None and self.fold is not None:
            raise ValueError("data.unsafe_split splits at random: leave out data.fold")
        if self.joins_sets:
            self._check_lists()
        return self

    def _check_lists(self) -> None:
        if self.fold is not None:
            name = fold_file(self.fold, "train")
            raise ValueError(
                f"data.fold={self.fold} chooses one set below data.root, not one of each in a list: leave it out, and "
                f"name them, as data.train=[a/{name}, b/{name}]"
            )
        if self.unsafe_split is not None:
            raise ValueError("data.unsafe_split splits all of data.root: leave out lists in data.train and data.val")
        if self.sampling.per_patient and len({each.said.weight for each in self.files("train")}) > 1:
            raise ValueError(
                "data.sampling.per_patient draws patients equally often, weights in data.train do not; leave one out"
            )
        weighted = [each.said.file for each in self.files("val") if each.said.weight != 1]
        if weighted:
            raise ValueError(f"data.val: weight of {', '.join(weighted)}: validation images count once; leave it out")

    @property
    def cache_folder(self) -> Path:
        """Where `cache: disk` lies."""
        return self.cache_dir or self.root / ".prepared"

    @property
    def joins_sets(self) -> bool:
        """Whether `train` or `val` is a list."""
        return isinstance(self.train, list) or isinstance(self.val, list)

    def files(self, subset: Literal["train", "val"]) -> list[PlacedFile]:
        """JSON files of the training or validation set."""
        given = self.train if subset == "train" else self.val
        if not isinstance(given, list):
            name = given or (f"{subset}.json" if self.fold is None else fold_file(self.fold, subset))
            if not self.joins_sets:
                return [PlacedFile(self.root / name, self.root, DataFileConfig(file=name))]
            given = [DataFileConfig(file=name)]
        return [PlacedFile(self.root / each.file, (self.root / each.file).parent, each) for each in given]
