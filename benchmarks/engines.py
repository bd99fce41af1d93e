"""TensorRT engines of a bundle and what building them took, from the records that the build left beside them."""

from __future__ import annotations
