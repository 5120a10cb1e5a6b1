"""Sparse dictionary on CPU: products with picked rows (kernels/rows.py). The encoder product itself is torch's."""

from kernels.rows import row_dots, table_gradient, weighted_rows

__all__ = ["row_dots", "table_gradient", "weighted_rows"]
