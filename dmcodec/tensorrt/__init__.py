"""What building and running TensorRT engines share: the library, profiles, and the folder that engines lie in."""
