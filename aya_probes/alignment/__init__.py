"""The alignment stage: from activations to curves, commitment layers and contrasts.

The formulas, from arrays to arrays, are in ``measures``, ``inference`` and ``layers``.
"""
