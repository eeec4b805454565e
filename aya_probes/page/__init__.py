"""The page: what it shows (``data``), its figures, its tabs, and a typed pair of sentences."""
