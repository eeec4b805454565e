"""How each perturbation of a text changes its alignment with the pivot, by regional variant."""
