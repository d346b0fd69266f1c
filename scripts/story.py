"""Tell the story of a photo: the same as ``python -m storyteller``."""

import sys

from storyteller.__main__ import main

sys.exit(main())
