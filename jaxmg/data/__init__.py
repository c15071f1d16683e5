"""Raw files, prepared directories, and the batches made from them (host, numpy)."""
