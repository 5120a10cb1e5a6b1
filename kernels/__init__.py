"""Hot paths: retrieval, rank-1 experts, sparse dictionaries, selection; and `codes`, which everything else is made of.

Each op is a package: `__init__.py` (the op: signature, gradients, FLOPs), `reference.py` (plain torch, the ground
truth), `cpu.py` (numba), `gpu.py` (Triton). `dispatch` decides which runs and records it. Imports only torch, numpy
and, when first needed, numba or triton. Numba compiles a kernel on its first call and keeps it in `__pycache__`.
"""
