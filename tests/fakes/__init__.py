"""A simulated GPU and TensorRT, which compute what real ones would, and catch what those would suffer."""
