"""Codecs that are measured, behind one interface (`MeasuredCodec`); `registry` has their names."""
