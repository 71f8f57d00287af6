"""Draw the figure of docs/dicom.md: what a segmentation and a structured report hold, as highdicom reads them back.

mammodet phantoms --archive rsna --patients 4 --size 1200 --output phantoms
mammodet predict --input phantoms/test_images --output preds --dicom sr seg
python docs/make_dicom_figure.py --study phantoms/test_images --objects preds/dicom --image 7000502.dcm
"""

import argparse
from pathlib import Path

import highdicom
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_voi_lut

from mammodet.files import write_bytes
from mammodet.reporting.curves import to_png

OUTPUT = Path(__file__).parent / "images" / "dicom_objects.png"
SHOWN = {"Certainty of Finding": "certainty {:.0f} %", "Long axis": "{:.1f} mm long", "Short axis": "{:.1f} mm short"}


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--image", required=True, help="file name of the image to draw")
    chosen = parser.parse_args()
    image = dcmread(next(chosen.study.rglob(chosen.image)))
    segmentations = map(highdicom.seg.segread, sorted(chosen.objects.glob("seg_*.dcm")))
    segmentation = next(
        each
        for each in segmentations
        if image.SOPInstanceUID in (instance for _, _, instance in each.get_source_image_uids())
    )
    (path,) = chosen.objects.glob("sr_*.dcm")
    regions = [
        group
        for group in highdicom.sr.srread(path).content.get_planar_roi_measurement_groups()
        if group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    ]

    matplotlib.rcParams["font.size"] = 8
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(apply_voi_lut(image.pixel_array, image), cmap="gray")
        axes.set_axis_off()
    masks = segmentation.get_pixels_by_source_instance([image.SOPInstanceUID])[0]
    for number in segmentation.segment_numbers:
        left.contourf(masks[..., number - 1], [0.5, 1], colors=["#E69F00"], alpha=0.6)
    left.set_title(f"Segmentation: {segmentation.number_of_segments} segments")
    for number, group in enumerate(regions, start=1):
        outline = group.roi.value
        right.plot(*outline.T, color="#E69F00", linewidth=1)
        right.annotate(str(number), outline[np.argmin(outline[:, 1])], color="white", ha="center", va="bottom")
    words = [f"{number}: {_words(group)}" for number, group in enumerate(regions, start=1)]
    right.set_title("\n".join([f"Structured report: {len(regions)} regions", *words]))
    write_bytes(OUTPUT, to_png(figure))


def _words(group: Dataset) -> str:
    values = {each.name.meaning: each.value for each in group.get_measurements()}
    parts = [text.format(values[name]) for name, text in SHOWN.items() if name in values]
    return ", ".join([group.finding_type.meaning, *parts])


if __name__ == "__main__":
    main()
