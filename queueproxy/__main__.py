"""`python -m queueproxy`: the same as the console script."""

import sys

from queueproxy.cli import main

sys.exit(main())
