"""`dmcodec bench`: speed, memory and fidelity of a bundle beside its peers. Start at `run_bench`."""
