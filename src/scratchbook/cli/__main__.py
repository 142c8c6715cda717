"""`python -m scratchbook.cli` is the command `scratchbook`."""

import sys

from . import main

sys.exit(main())
