"""Decide which ground truth, if any, a prediction answers for.

Shapes: M ground truths and P predictions of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserValueError


class Matcher:
    """Give every prediction its best ground truth, and a label by how good that match is.

    The quality axis is cut at `thresholds`; a prediction whose best quality lies in the i-th piece (lower end
    included) gets `labels[i]`: 1 is foreground, 0 background, -1 ignored.
    """

    def __init__(
        self, thresholds: list[float], labels: list[int], allow_low_quality_matches: bool = False
    ) -> None:
        """
        Args:
            thresholds: T ascending positive numbers.
            labels: T + 1 entries of -1, 0 or 1.
            allow_low_quality_matches: label the best predictions of every ground truth 1, however low their
                quality.
        """
        if len(labels) != len(thresholds) + 1:
            raise UserValueError(
                f"Matcher needs one label more than thresholds; got labels={labels}, thresholds={thresholds}"
            )
        if list(thresholds) != sorted(thresholds) or any(t <= 0 for t in thresholds):
            raise UserValueError(f"Matcher thresholds must be positive and ascending, got {thresholds}")
        if not set(labels) <= {-1, 0, 1}:
            raise UserValueError(
                f"Matcher labels must be -1 (ignore), 0 (background) or 1 (foreground), got {labels}"
            )
        self.thresholds = list(thresholds)
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match the predictions of one image.

        Args:
            match_quality_matrix: (M, P) non-negative qualities, such as IoU.

        Returns:
            (P,) int64 index of the best ground truth (0 where there is none), and (P,) int8 labels. Without
            ground truth every prediction gets the label of quality zero.
        """
        quality = match_quality_matrix
        num_gt, num_predictions = quality.shape
        if num_gt == 0:
            # The max over an empty dimension is undefined.
            quality = quality.new_zeros(1, num_predictions)
        best_quality, matches = quality.max(dim=0)
        match_labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:]):
            match_labels.masked_fill_(best_quality >= threshold, label)
        if self.allow_low_quality_matches and num_gt and num_predictions:
            self.set_low_quality_matches_(match_labels, quality)
        return matches, match_labels

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Label 1 all predictions that reach the best quality of some ground truth, in place.

        The ground truth that such a prediction is matched to stays its own best one, which may be another:
        what counts is that a ground truth's neighbourhood is foreground.

        Args:
            match_labels: (P,) int8.
            match_quality_matrix: (M, P), M > 0 and P > 0.
        """
        best_of_gt = match_quality_matrix.amax(dim=1, keepdim=True)
        match_labels.masked_fill_((match_quality_matrix == best_of_gt).any(dim=0), 1)
