"""Detection: networks, their optimisation for inference, and detection sources for the pipeline."""
