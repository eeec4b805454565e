"""The page: its data, its figures (``plots``), its tabs, and the curve of a typed pair."""
