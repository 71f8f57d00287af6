"""The command lines. A package, so that tests find these and not the `tools` that detectron2 installs."""
