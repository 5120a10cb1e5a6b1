"""Sparse dictionary on GPU (Triton, kernels/rows_gpu.py). The encoder product itself is torch's."""

from kernels.rows_gpu import row_dots, table_gradient, unit_sums, weighted_rows

__all__ = ["row_dots", "table_gradient", "unit_sums", "weighted_rows"]
