"""Codecs that can be measured, behind one interface: a bundle, its torch model, a checkpoint."""
