"""Poolings: which tokens of a text a stored vector averages."""

from __future__ import annotations

POOLINGS = ("span_mean", "content_mean", "last_content", "last")
