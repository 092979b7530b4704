"""`python -m detectron2.data.datasets.coco JSON IMAGES NAME` checks a data set and draws a part of it."""

from .reader import main

main()
