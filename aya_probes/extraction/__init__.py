"""Extraction: from texts to pooled residual-stream vectors on disk.

``encoding`` (tokens and positions) -> ``packs`` (texts run together) -> ``runner`` (plan, shards,
resume) -> ``store`` (plans and shards on disk, read by every later stage).
"""
