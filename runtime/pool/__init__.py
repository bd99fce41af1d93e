"""Many live streams on one machine, run together in batches. Start at `dmcodec.runtime.pool.stream_pool`."""
