"""detectron2's networks as detectors; these modules and `mammodet.data.detectron2_*` alone import it."""
