"""Extraction: from texts to pooled residual-stream vectors on disk.

``encoding`` finds tokens and positions, ``packs`` runs texts together, ``runner`` plans, writes and
resumes, ``store`` reads and writes shards. ``vectors`` does it in memory for a few texts.
"""
