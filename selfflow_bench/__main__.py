"""``python -m selfflow_bench`` is the ``selfflow-bench`` command."""

import sys

from selfflow_bench.cli import main

sys.exit(main())
