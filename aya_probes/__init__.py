"""Cross-lingual concept probes of causal language models, layer by layer."""
