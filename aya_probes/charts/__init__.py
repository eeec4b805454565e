"""Charts as SVG text, for the page and for the report.

A chart is a small panel of fixed nominal width; several stand in a grid that follows the width of
the window. Colours are CSS variables (``charts.css``), so that a panel is right in light and dark.
"""
