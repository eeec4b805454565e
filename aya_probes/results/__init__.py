"""The results of a run as typed records: the one place that knows their schema.

``alignment`` holds what concept_alignment.py writes, ``failures`` what failure_classifier.py
writes. Every field of a record is documented under it; docs/artifacts.md is filled from that.
"""
