"""A simulated GPU and a simulated TensorRT, which compute what the real ones would, and catch what they would suffer."""
