"""From a data set file and a predictions file to figures; knows no model and no torch."""
