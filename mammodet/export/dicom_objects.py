"""Findings of one image as a segmentation, a secondary capture, and a presentation state."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence, PresentationLUTTransformation
from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, GrayscaleSoftcopyPresentationState, TextObject
from highdicom.sc import SCImage
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from mammodet.data.dicom.tags import factor
from mammodet.data.images import read_image, to_display
from mammodet.export.dicom_source import Maker, Reading, lab
from mammodet.geometry import rle_to_mask
from mammodet.reporting.canvas import Line, View, banner
from mammodet.reporting.overlay import PREDICTION, TITLE, OverlayOptions, draw_predictions, font_size, prediction_text
from mammodet.version import VERSION

_HIGHEST_PX = 1600  # of a secondary capture: a picture to look at, not to measure on


def make_segmentation(reading: Reading, maker: Maker, number: int) -> Dataset:
    """A binary SEG with one segment per finding, at the image's own size; there must be a finding."""
    algorithm = AlgorithmIdentificationSequence(
        "mammodet", codes.cid7162.ArtificialIntelligence, VERSION, parameters=maker.parameters
    )
    segments = []
    for index in range(len(reading.findings)):
        identifier, uid = reading.tracking(index, maker)
        segments.append(
            SegmentDescription(
                index + 1,
                identifier,
                codes.SCT.MorphologicallyAbnormalStructure,
                reading.code(index),
                "AUTOMATIC",
                algorithm,
                tracking_uid=uid,
                tracking_id=identifier,
                anatomic_regions=[codes.SCT.Breast],
                display_color=lab(PREDICTION),
            )
        )
    measures, source = _pixel_measures(reading), copy(reading.source)
    if measures is None and "PixelSpacing" in source:  # highdicom would make incomplete ones of it
        del source.PixelSpacing
    masks = np.stack([rle_to_mask(reading.rle(index)) for index in range(len(segments))], axis=-1)
    segmentation = Segmentation(
        [source],
        masks[None],
        "BINARY",
        segments,
        sop_instance_uid=maker.uid(reading.uid, "seg"),
        instance_number=number,
        content_label="FINDINGS",
        omit_empty_frames=False,
        pixel_measures=measures,
        **maker.series(str(reading.source.StudyInstanceUID), "seg", 9002),
    )
    segmentation.PatientOrientation = reading.orientation  # PS3.3 C.7.6.1: an image without a position has one
    segmentation.ContentCreatorName = ""  # type 2
    return segmentation


def _pixel_measures(reading: Reading) -> PixelMeasuresSequence | None:
    """Real spacing, with the compressed breast as the slice: readers, highdicom's too, refuse measures without one."""
    thickness = factor(reading.source, "BodyPartThickness")
    if reading.spacing is None or thickness is None:
        return None
    return PixelMeasuresSequence(reading.spacing.mm_rc, slice_thickness=thickness)


def make_capture(reading: Reading, maker: Maker, number: int) -> Dataset:
    """The image with findings and scores drawn on it, in colour; neither patient nor file is named on it."""
    options = OverlayOptions(maker.score_threshold, max_detections=1000, categories=tuple(set(reading.categories)))
    if len(options.categories) < 2:
        options = replace(options, categories=())
    pixels = to_display(read_image(reading.path))
    view = View.around(reading.image.size_hw, height=min(reading.image.size_hw[0], _HIGHEST_PX))
    canvas = draw_predictions(pixels, reading.image, options, view=view)
    size = font_size(view.size_hw)
    lines = [Line(f"mammodet {VERSION}, research only", TITLE, bold=True)]
    lines.append(Line(prediction_text(reading.image, options), PREDICTION))
    picture = np.concatenate([banner(lines, canvas.shape[1], size), canvas])
    study = str(reading.source.StudyInstanceUID)
    capture = SCImage(
        picture,
        "RGB",
        8,
        "PATIENT",
        study_instance_uid=study,
        sop_instance_uid=maker.uid(reading.uid, "sc"),
        instance_number=number,
        patient_orientation=("A", "F"),  # highdicom asks for one, and takes none of several letters
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **maker.series(study, f"sc {reading.side}".strip(), 9003),
    )
    capture.copy_patient_and_study_information(reading.source)
    capture.PatientOrientation = reading.orientation
    capture.Laterality = reading.side  # of the series (PS3.3 C.7.3.1): each side has its own
    capture.BurnedInAnnotation = str(reading.source.get("BurnedInAnnotation") or "NO")
    reference = Dataset()
    reference.ReferencedSOPClassUID = reading.source.SOPClassUID
    reference.ReferencedSOPInstanceUID = reading.source.SOPInstanceUID
    capture.SourceImageSequence = [reference]
    capture.DerivationDescription = f"findings of mammodet {VERSION}, checkpoint {maker.checkpoint[:16]}"
    return capture


def make_presentation(reading: Reading, maker: Maker, number: int) -> Dataset:
    """A GSPS with the contour of every part of every finding and its score, on the source image as it is windowed."""
    layer = GraphicLayer("FINDINGS", 1, "findings of mammodet", lab(PREDICTION))
    outlines, texts = [], []
    for index in range(len(reading.findings)):
        identifier, uid = reading.tracking(index, maker)
        rings = reading.rings(index)
        outlines += [
            GraphicObject("POLYLINE", ring, "PIXEL", tracking_id=identifier, tracking_uid=uid) for ring in rings
        ]
        corner = np.concatenate(rings).min(axis=0)
        texts.append(
            TextObject(
                f"{identifier}: {reading.findings.scores[index]:.2f}",
                "PIXEL",
                anchor_point=(float(corner[0]), float(corner[1])),
                anchor_point_visible=False,
                tracking_id=identifier,
                tracking_uid=uid,
            )
        )
    findings: dict[str, Any] = (
        {
            "graphic_annotations": [
                GraphicAnnotation([reading.source], layer, graphic_objects=outlines, text_objects=texts)
            ],
            "graphic_layers": [layer],
        }
        if outlines
        else {}
    )
    # A presentation state passes over the photometric interpretation (PS3.3 C.11.6): it must invert by itself.
    shape = "INVERSE" if reading.source.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
    state = GrayscaleSoftcopyPresentationState(
        [reading.source],
        sop_instance_uid=maker.uid(reading.uid, "gsps"),
        instance_number=number,
        content_label="FINDINGS",
        content_description="findings of mammodet, research only",
        **findings,
        presentation_lut_transformation=PresentationLUTTransformation(shape),
        **maker.series(str(reading.source.StudyInstanceUID), f"gsps {reading.side}".strip(), 9004),
    )
    state.Laterality = reading.side  # as of a capture
    return state
