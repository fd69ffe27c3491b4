"""Results are read, compared and shown without torch, matplotlib or Pillow."""

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import selfflow_bench.results as package
for module in pkgutil.walk_packages(package.__path__, "selfflow_bench.results."):
    importlib.import_module(module.name)
print(*sorted({"torch", "matplotlib", "PIL", "transformers", "soundfile", "huggingface_hub"} & set(sys.modules)))
"""


def test_no_module_imports_what_only_training_needs() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
