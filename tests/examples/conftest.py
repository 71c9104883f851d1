"""Let the tests import `examples` (a folder beside `src`, not an installed package).

Run from the root of the repository: python -m pytest tests/examples
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
