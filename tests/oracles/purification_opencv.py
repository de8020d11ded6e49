"""The published purification steps on 8-bit grey images, with OpenCV.

Written from the description of the published scripts' behaviour, faults included;
`tests/data/ip_reference` holds what the scripts themselves wrote.
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
    """CM_lung: CM without what a fill from (0, 0) reaches on a copy, 254 like 255."""
    _, filled = cv2.threshold(mask, 200, 255, cv2.THRESH_BINARY)
    cv2.floodFill(filled, None, (0, 0), 128, flags=4)
    return np.where(filled == 128, 0, mask).astype(np.uint8)


def purify_v1(
    lq: np.ndarray, gt: np.ndarray, t: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lq_bar, gt_bar and CM, 8 bits."""
    mask = common_mask(lq, gt)
    weight = mask.astype(np.float32) / np.float32(255)
    # uint8 times a float of Python: the share T is blended in float64.
    lq_bar = weight * gt + (1 - weight) * ((1 - t) * lq + t * gt)
    gt_bar = weight * lq + (1 - weight) * gt
    return _round(lq_bar), _round(gt_bar), mask


def purify_v2(
    lq: np.ndarray,
    gt: np.ndarray,
    noisy_gt: np.ndarray | None = None,
    quiet_lq: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lq_bar, gt_bar and CM_lung, 8 bits, from N(gt) and W(lq) made elsewhere."""
    mask = remove_background(common_mask(lq, gt))
    weight = mask.astype(np.float32) / np.float32(255)
    noisy = gt if noisy_gt is None else noisy_gt
    quiet = lq if quiet_lq is None else quiet_lq
    lq_bar = weight * noisy + (1 - weight) * lq
    gt_bar = weight * quiet + (1 - weight) * gt
    return _round(lq_bar), _round(gt_bar), mask


def _round(value: np.ndarray) -> np.ndarray:
    """As `cv2.imwrite`: half to even."""
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)
