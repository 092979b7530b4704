"""Names of the research projects that detectron2 carries along, for files that import them."""
