"""Training of codecs by the DM-Codec recipe (arXiv 2410.15017, section 3 and appendix), with configurable constants."""
