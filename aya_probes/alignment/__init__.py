"""Alignment: from activations to curves, commitment and contrasts.

The measures themselves, arrays in and arrays out, are in ``alignment_stats``.
"""
