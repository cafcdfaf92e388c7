"""What the command line consists of: options and help."""
