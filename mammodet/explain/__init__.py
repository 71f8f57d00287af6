"""Pictures of what a model sees: layers, feature maps, class activation maps, preprocessing, training curves."""
