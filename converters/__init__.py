"""One module per archive: each turns a folder as it was downloaded into COCO JSON, images and a summary."""
