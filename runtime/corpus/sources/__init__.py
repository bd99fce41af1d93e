"""Sources: what the arguments of `dmcodec tokenize` can name. Each lists clips; their audio is opened elsewhere."""
