"""Whatever can be measured as a codec, behind one interface: `MeasuredCodec`. `registry` has the names."""
