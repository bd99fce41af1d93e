"""Engines: each runs the shards of a plan with `dmcodec.runtime.corpus.shard.run_shard`, in processes or on a cluster."""
