"""Which images are of one breast."""

from collections.abc import Sequence

from mammodet.records import ImageRecord


def breasts_of(records: Sequence[ImageRecord]) -> dict[int, list[int]]:
    """Position of each breast's first image to the positions of all its images.

    An image that does not say its patient or its side stands for itself.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for position, record in enumerate(records):
        members.setdefault(breast_key(record), []).append(position)
    return {positions[0]: positions for positions in members.values()}


def breast_key(record: ImageRecord) -> tuple[str, ...]:
    """(patient, side), or the image's own number where one is not known."""
    if record.patient_id is None or record.laterality is None:
        return (str(record.image_id),)
    return (record.patient_id, record.laterality)
