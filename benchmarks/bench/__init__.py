"""`dmcodec bench`: speed, memory and agreement of a bundle, compared with its peers. Start at `run_bench`."""
