"""Planted truth: vectors, models and runs whose answer is known."""
