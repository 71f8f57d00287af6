"""Synthetic mammograms, and archives of them with the quirks of the real ones; here their options."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from mammodet.command_line import Options, flag

LESION_QUIRKS = {
    "several_lesions": "an image with two or three lines",
    "benign_and_malignant": "an image with a benign and a malignant line",
    "note3": "calcifications all over the breast: `*NOTE 3*` instead of a place",
    "no_coordinates": "a lesion whose line ends after its severity",
    "circle_on_background": "a cluster whose tiny circle lies off the breast, wherever y is counted from",
}
FILM_QUIRKS = {
    "labels": "side labels and film numbers beside the breast",
    "scan_edges": "white strips, grey bands, tape or scratches at the film's edges",
}
FILE_QUIRKS = {
    "missing_image": "a line whose PGM is not there",
    "missing_line": "a PGM without a line",
    "truncated_image": "a PGM that is cut short",
}
TABLE_QUIRKS = {
    "swapped_columns": "crop and mask are in each other's column of the table",
    "split_series": "crop and mask lie in different studies and series, both named 000000.dcm",
    "several_lesions": "an image with two to seven lesions",
    "odd_ids": "abnormality ids that do not start at 1",
    "mixed_pathology": "a benign and a malignant lesion on one image",
    "shared_image": "an image of both the mass and the calcification set",
    "leaking_patient": "a patient in training of one set and in test of the other, with the same image",
    "zero_scores": "density 0 and assessment 0",
    "without_callback": "a lesion that is BENIGN_WITHOUT_CALLBACK",
}
MASK_QUIRKS = {"several_components": "a mask of two parts", "mask_rescaled": "a mask 1.15 times the size of its image"}
FAULTS = {
    "mask_stretched": "a mask whose frame was cut and padded; the crop tells its place",
    "mask_stretched_unclear": "the same without a crop",
    "missing_image": "no full image",
    "missing_mask": "no mask, only a crop",
    "missing_crop": "no crop, only a mask",
    "truncated_image": "a full image that is cut short",
    "truncated_mask": "a mask that is cut short",
    "empty_mask": "a mask without a pixel",
    "mask_not_binary": "a grey picture in place of the mask",
    "stray_files": "files that do not belong there",
}
ROW_QUIRKS = {
    "missing_image": "a row whose file is not there",
    "missing_row": "a file that has no row",
    "truncated_image": "a file that is cut short within its pixels",
    "damaged_image": "a file that is no DICOM file",
    "contradiction": "a file whose header says the other side and view than its row",
}
FOLDERS = tuple(f"Density{density}{severity}" for density in "1234" for severity in ("Benign", "Malignant"))


class ArchiveOptions(Options):
    """Options of every archive."""

    seed: int = flag(0, "same seed, same archive", ge=0)


class WomenOptions(ArchiveOptions):
    """Options of archives of women."""

    #: Name to what it is; those in `USUAL` are placed where none are named.
    QUIRKS: ClassVar[Mapping[str, str]] = {}
    USUAL: ClassVar[Sequence[str]] = ()

    patients: int = flag(12, "women, with two to five images each", ge=1, le=9999)
    size: int = flag(1024, "height of the images in pixels", ge=64, le=6000)
    quirks: tuple[str, ...] | None = flag(None, "quirks, none for a clean archive (all but those only where asked for)")
    difficulty: Literal["realistic", "easy"] = flag("realistic", "'easy': masses plain to see, quirks aside")
    jobs: int = flag(1, "processes, -1: all cores; the archive does not depend on it", ge=-1)

    @field_validator("quirks", mode="before")
    @classmethod
    def _check_quirks(cls, given: Collection[str] | None) -> tuple[str, ...]:
        names = cls.USUAL if given is None else {given} if isinstance(given, str) else given
        unknown = sorted(set(names) - set(cls.QUIRKS))
        if unknown:
            raise ValueError(f"--quirks {', '.join(unknown)}: expected some of {', '.join(cls.QUIRKS)}")
        return tuple(name for name in cls.QUIRKS if name in names)

    @field_validator("jobs")
    @classmethod
    def _check_jobs(cls, jobs: int) -> int:
        if jobs == 0:
            raise ValueError("--jobs 0: expected 1 or more, or -1 for all cores")
        return jobs

    @property
    def placed(self) -> tuple[str, ...]:
        """The quirks, in the order of `QUIRKS`."""
        return self.quirks or ()


class MiasPhantom(WomenOptions):
    """Options of an archive in the layout of mini-MIAS.

    From 12 women on every quirk occurs; those of lesions need an `abnormal_fraction` above 0.
    """

    QUIRKS = LESION_QUIRKS | FILM_QUIRKS | FILE_QUIRKS | {"crlf": "Info.txt with CRLF line ends"}
    USUAL = (*LESION_QUIRKS, *FILM_QUIRKS)

    patients: int = flag(12, "women, two images each", ge=1, le=499)  # the layout has three digits
    size: int = flag(1024, "side of the images in pixels", ge=128, le=4096)
    abnormal_fraction: float = flag(0.5, "share of images with a lesion; more where the quirks need them", ge=0, le=1)


class CbisPhantom(WomenOptions):
    """Options of an archive in the layout of CBIS-DDSM; each quirk is shown by one image, as far as there are images.

    With `tables` an image is drawn for each of their rows; `patients`, `abnormality` and `quirks` are not used.
    """

    QUIRKS = TABLE_QUIRKS | MASK_QUIRKS | FAULTS
    USUAL = (*TABLE_QUIRKS, *MASK_QUIRKS)

    patients: int = flag(12, "women, two views of one breast each; every fifth is in the test sets", ge=1, le=9999)
    size: int = flag(1024, "height of the films in pixels; real ones have 3000 to 6000", ge=64, le=6000)
    layout: Literal["tcia", "tcia_dated", "kaggle_jpeg", "flat_png"] = flag(
        "tcia", "layout: of TCIA, of its newer downloads, of Kaggle's JPEG edition, or PNG files named by case"
    )
    abnormality: Literal["mass", "calc", "both"] = flag("both", "which of the two sets are drawn")
    tables: Path | None = flag(None, "folder of the official tables: an image for each row")


class RsnaPhantom(WomenOptions):
    """Options of an archive in the layout of RSNA's; each quirk is shown by one image.

    With `table` an image is drawn for each of its rows, or for `limit` of them, those of one woman after those of
    another; `patients` and `positive_fraction` are not used, and there is no test.csv.
    """

    QUIRKS = ROW_QUIRKS

    patients: int = flag(12, "women of train.csv, with four images or five; one more makes up test.csv", ge=1, le=9999)
    size: int = flag(1024, "height of the images in pixels; real ones have 2000 to 4000", ge=64, le=6000)
    positive_fraction: float = flag(0.25, "share of women with cancer, in one breast; real: 0.04", ge=0, le=1)
    table: Path | None = flag(None, "a table of the archive's form: an image for each row")
    limit: int | None = flag(None, "draw at most N rows of --table", ge=1)


class FolderPhantom(ArchiveOptions):
    """Options of an archive of class folders."""

    images: int = flag(
        64,
        "files, or patches, equally many of each class; every third file has one or two copies among them",
        ge=len(FOLDERS),
    )
    size: int = flag(224, "side of the images in pixels", ge=128, le=4096)


class PatchesPhantom(ArchiveOptions):
    """Options of an archive of patches."""

    images: int = flag(200, "patches; 70 % for training, the rest half and half. Half of each part are negative", ge=20)
    size: int = flag(299, "side of the patches in pixels", ge=32, le=1024)
