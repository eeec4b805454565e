"""The results of a run as typed records; only this package defines their fields.

``alignment`` has the records of concept_alignment.py, ``failures`` those of
failure_classifier.py. The string under each field documents it, also in docs/artifacts.md.
"""
