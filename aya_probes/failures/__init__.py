"""The failures stage: how perturbing a text changes its alignment, by regional variant."""
