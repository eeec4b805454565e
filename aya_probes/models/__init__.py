"""Models: where weights come from, loading, and the residual stream."""
