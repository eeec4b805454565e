"""The report of a run: one HTML file with findings, charts, tables, methods and provenance."""
