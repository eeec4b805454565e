"""Check a language router: call it, whatever it does, and compare it with simple baselines."""
