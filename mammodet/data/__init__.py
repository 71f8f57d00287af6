"""From files to tensors: reading, breast crop, windows, COCO JSON, splits, augmentation, data sets."""
