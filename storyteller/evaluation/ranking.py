"""Image and caption retrieval; see `storyteller.captions.ranking`."""

from __future__ import annotations

from ..captions.ranking import Ranking as Ranking
from ..captions.ranking import i2t as i2t
from ..captions.ranking import in_folds as in_folds
from ..captions.ranking import t2i as t2i
