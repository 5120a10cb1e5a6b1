"""Command line of the benchmark."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from kernels.bench import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.bench", description="Check, time and tabulate the kernels."
    )
    parser.add_argument("--out", type=Path, default=Path("results/kernels"), help="folder of table.md and table.json")
    parser.add_argument("--rivals", type=Path, help="folder with peer-pytorch and dictionary-learning")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of everything")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(arguments.out, arguments.rivals, arguments.rounds)


if __name__ == "__main__":
    main()
