"""What scanners find in the dependencies, the image and the configuration, and what of it is accepted."""
