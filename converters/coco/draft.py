"""Annotations of other formats, as a COCO file would list them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.coco.boxes import FAULT, says_normal
from mammodet.converters.coco.source import CocoFile, CocoId, SourceImage, subset_of
from mammodet.data.json_values import short


@dataclass
class _Listed:
    item: dict[str, Any]
    marks: list[tuple[str, Mapping[Any, Any]]] = field(default_factory=list)


@dataclass
class Draft:
    """Images and marks as a reader meets them; the images of each subset become one `CocoFile`."""

    source: Path
    label: str  #: of the annotations, for messages
    #: boxes, sizes_told: as in `CocoFile`.
    boxes: str | None = None
    sizes_told: bool = True
    quarantine: list[Quarantined] = field(default_factory=list)
    unfinished: set[str] = field(default_factory=set)  #: images that nobody has looked at yet
    _images: dict[tuple[str | None, str], _Listed] = field(default_factory=dict)
    _categories: dict[str, int] = field(default_factory=dict)

    def image(self, name: str, annotations: Path | None = None, **item: Any) -> str | None:
        """List an image, once, and answer its subset, which is that of its own path, else of its annotations'.

        Args:
            name: its path below the source, or as the annotations have it.
            item: `height`, `width`, `patient_id`, ...; what is None is not told.
        """
        subset = subset_of(Path(name))
        if subset is None and annotations is not None:
            inside = annotations.is_relative_to(self.source)
            subset = subset_of(annotations.relative_to(self.source) if inside else Path(annotations.name))
        listed = self._images.setdefault((subset, name), _Listed({"file_name": name}))
        listed.item.update({key: value for key, value in item.items() if value is not None})
        return subset

    def mark(
        self,
        name: str,
        subset: str | None,
        what: str,
        category: str,
        *,
        bbox: Sequence[Any] | None = None,
        segmentation: Any = None,
        attributes: Mapping[str, Any] | None = None,
        fault: str | None = None,
        **item: Any,
    ) -> None:
        """Add a mark to a listed image.

        Args:
            what: its name in messages; category: `lesion` where it has no name.
            bbox: x, y, width, height; segmentation: as in COCO.
            fault: why it has no place.
        """
        number = self._categories.setdefault(category or "lesion", len(self._categories) + 1)
        values: dict[Any, Any] = {"bbox": bbox, "segmentation": segmentation, "attributes": attributes, FAULT: fault}
        told = {key: value for key, value in values.items() if value is not None}
        self._images[subset, name].marks.append((what, {"category_id": number, **told, **item}))

    def tell(self, name: str, subset: str | None, what: str, word: str) -> None:
        """Add what is said of a whole listed image: that it is normal, or something that may mean a lesion or not."""
        if says_normal(word):
            self._images[subset, name].item["pathology"] = "normal"
        else:
            fault = {FAULT: f"says {short(word)} of the whole image, which is not understood"}
            self._images[subset, name].marks.append((what, fault))

    def lose(self, name: str, reason: str) -> None:
        """Quarantine a mark that belongs to no image."""
        self.quarantine.append(Quarantined(Reason.BAD_ROW, "annotation", name, reason, self.label))

    def names(self) -> set[str]:
        """The images that are listed."""
        return {name for _, name in self._images}

    def files(self) -> list[CocoFile]:
        """What was listed, a file for each subset; what belongs to no image goes to the first."""
        categories: dict[CocoId, str] = {number: name for name, number in self._categories.items()}
        by_subset: dict[str | None, list[SourceImage]] = {}
        for (subset, name), listed in self._images.items():
            by_subset.setdefault(subset, []).append(SourceImage(name, listed.item, tuple(listed.marks)))
        return [
            CocoFile(
                path=self.source / self.label,
                label=f"{self.label} ({subset})" if len(by_subset) > 1 else self.label,
                subset=subset,
                categories=categories,
                images=tuple(images),
                quarantine=() if number else tuple(self.quarantine),
                boxes=self.boxes,
                sizes_told=self.sizes_told,
            )
            for number, (subset, images) in enumerate(by_subset.items())
        ]
