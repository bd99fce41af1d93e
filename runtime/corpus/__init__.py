"""A corpus of any size to tokens: a plan of shards, engines that run them, and the formats that they are written in."""
