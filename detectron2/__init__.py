"""Detection and segmentation of images: models, training, evaluation and pictures of the results.

Importing this package loads neither torch nor the compiled operators. Import the subpackage that you need.
"""

__version__ = "1.0.0"
