"""Training: the DM-Codec recipe (arXiv 2410.15017, section 3 and appendix), with every constant configurable."""
