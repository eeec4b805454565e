"""The logit lens: which words each layer would say, and in which language."""
