"""Dictionaries learnt on a subject's activations, one kind a file; `DICTIONARIES` lists them by the names that rows of
a table use. A file of this folder is found by walking it, one of another package by entry point
(`harness.dictionaries`). Nothing is imported before it is asked for: SAELens takes seconds."""

from saes.registry import DICTIONARIES, register

__all__ = ["DICTIONARIES", "register"]
