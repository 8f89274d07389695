"""Metrics: were the nuclei found, typed and outlined, and how sure can one be of the answer."""

from nucleoscope.metrics.calibration import Reliability, calibration_error, reliability
from nucleoscope.metrics.detection import (
    HovernetScores,
    Matching,
    Scores,
    detection_scores,
    hovernet_type_scores,
    match_points,
    type_scores,
)
from nucleoscope.metrics.evaluation import (
    Evaluation,
    ImageResult,
    Summary,
    evaluate_images,
    evaluate_tables,
    format_table,
)
from nucleoscope.metrics.segmentation import (
    PanopticQuality,
    SegmentationScores,
    aji,
    aji_plus,
    dice,
    f1_at_iou,
    panoptic_quality,
    segmentation_scores,
)

__all__ = [
    "Evaluation",
    "HovernetScores",
    "ImageResult",
    "Matching",
    "PanopticQuality",
    "Reliability",
    "Scores",
    "SegmentationScores",
    "Summary",
    "aji",
    "aji_plus",
    "calibration_error",
    "detection_scores",
    "dice",
    "evaluate_images",
    "evaluate_tables",
    "f1_at_iou",
    "format_table",
    "hovernet_type_scores",
    "match_points",
    "panoptic_quality",
    "reliability",
    "segmentation_scores",
    "type_scores",
]
