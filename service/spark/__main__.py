"""`python -m hourglass.spark`, or this file with spark-submit.

Workers look for what they are sent in the module of its own name, which is not this one's.
"""

import sys

from hourglass.spark import main

if __name__ == "__main__":
    sys.exit(main())
