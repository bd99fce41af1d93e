"""Engines: each runs the shards of a plan with `run_shard`, in processes of this machine or on a cluster."""
