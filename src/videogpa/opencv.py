"""OpenCV that gives the same numbers every time."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def deterministic_opencv() -> Iterator[None]:
    """One OpenCV thread and a fixed random state inside the block: the same input gives the same numbers."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
