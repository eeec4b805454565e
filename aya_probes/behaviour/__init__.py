"""Behaviour: how well a model predicts a text, and how well it understands one (ADR-019)."""
