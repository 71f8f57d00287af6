"""What a file says of its one frame in functional groups (PS3.3 C.7.6.16), brought up to where other files say it.

Enhanced and tomosynthesis objects have window, rescaling, spacing and side in sequences, shared by all frames or of
each frame; everything else here reads them from the top level.
"""

from pathlib import Path

from pydicom.dataset import Dataset

from mammodet.data.dicom import tags
from mammodet.errors import InputError

_MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "FrameAnatomySequence": ("FrameLaterality",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": (
        "WindowCenter",
        "WindowWidth",
        "WindowCenterWidthExplanation",
        "VOILUTFunction",
        "VOILUTSequence",
    ),
}


def merge_groups(path: Path, dataset: Dataset) -> None:
    """Copy the elements of the shared and the per-frame groups to the top level of a file of one frame.

    Raises InputError: an element says one thing there and another one elsewhere, or there are groups of several frames
    although the file states one.
    """
    if (tags.text(dataset, "NumberOfFrames") or "1").strip() != "1":
        return  # refused by what reads the number
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = tags.items(dataset, sequence)
        if len(groups) > 1:
            raise InputError(f"{path}: states one frame, and has functional groups of {len(groups)}; it is damaged")
        for group in groups:
            for macro, keywords in _MACROS.items():
                for item in tags.items(group, macro)[:1]:
                    for keyword in keywords:
                        _copy(path, item, dataset, keyword)


def _copy(path: Path, item: Dataset, dataset: Dataset, keyword: str) -> None:
    if keyword not in item:
        return
    element = item.get_item(keyword, keep_deferred=True)
    if keyword in dataset and _content(dataset, keyword) != _content(item, keyword):
        raise InputError(
            f"{path}: says {keyword} {tags.shown(dataset, keyword)!r} and, in its functional groups, "
            f"{tags.shown(item, keyword)!r}; expected one value for all frames"
        )
    if element is not None:
        dataset[element.tag] = element


def _content(dataset: Dataset, keyword: str) -> object:
    numbers = tags.numbers(dataset, keyword) if keyword.startswith(("Window", "Rescale", "Pixel")) else None
    return numbers if numbers and numbers == numbers else tags.shown(dataset, keyword)
