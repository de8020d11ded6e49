"""The published purification steps on 8-bit grey images, with OpenCV.

Written from the description of the published scripts' behaviour, faults included. Two
things it does not say are decided here, and the reference variant follows:
`cv2.floodFill` runs with its default tolerances, so that 254 and 255 are different
regions; and results are rounded to the nearest grey level, ties up.
"""

import cv2
import numpy as np


def dark_mask(grey: np.ndarray) -> np.ndarray:
    """D: inverse binary Otsu, cross opening, at least one of 8 neighbours; 0 or 255."""
    # The threshold of 10 is dead: Otsu overrides it.
    _, dark = cv2.threshold(grey, 10, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    cross = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, cross)
    around = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)
    neighbours = cv2.filter2D(
        dark // 255, cv2.CV_8U, around, borderType=cv2.BORDER_CONSTANT
    )
    return np.where(neighbours >= 1, dark, 0).astype(np.uint8)


def common_mask(lq: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """CM: the sum of two uint8 masks, in which 255 + 255 wraps to 254."""
    return dark_mask(lq) + dark_mask(gt)


def remove_background(mask: np.ndarray) -> np.ndarray:
    """CM_lung: what a flood fill of 0 from corner (0, 0) leaves of CM."""
    mask = mask.copy()
    cv2.floodFill(mask, None, (0, 0), 0, flags=4)
    return mask


def purify_v1(
    lq: np.ndarray, gt: np.ndarray, t: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lq_bar, gt_bar and CM, 8 bits."""
    mask = common_mask(lq, gt)
    weight, x, y = mask / 255, lq.astype(float), gt.astype(float)
    lq_bar = weight * y + (1 - weight) * ((1 - t) * x + t * y)
    gt_bar = weight * x + (1 - weight) * y
    return _round(lq_bar), _round(gt_bar), mask


def purify_v2(
    lq: np.ndarray,
    gt: np.ndarray,
    noisy_gt: np.ndarray | None = None,
    quiet_lq: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lq_bar, gt_bar and CM_lung, 8 bits, from N(gt) and W(lq) made elsewhere."""
    mask = remove_background(common_mask(lq, gt))
    weight, x, y = mask / 255, lq.astype(float), gt.astype(float)
    noisy = y if noisy_gt is None else noisy_gt.astype(float)
    quiet = x if quiet_lq is None else quiet_lq.astype(float)
    lq_bar = weight * noisy + (1 - weight) * x
    gt_bar = weight * quiet + (1 - weight) * y
    return _round(lq_bar), _round(gt_bar), mask


def _round(value: np.ndarray) -> np.ndarray:
    # 1e-9: float64 may leave a tie (T in tenths) just below one half.
    return np.clip(np.floor(value + 0.5 + 1e-9), 0, 255).astype(np.uint8)
