"""Training data: annotated images, public data sets to download, drawn streets and simulated crowds."""
