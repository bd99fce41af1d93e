"""Codecs by name: the table of names, the user's cache of bundles, and bundles on the Hugging Face hub."""
