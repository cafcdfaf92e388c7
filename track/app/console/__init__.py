"""What the command line consists of: options, help, and checks of outputs."""
