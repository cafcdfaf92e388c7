"""What the command line consists of: options and help, what a config takes in and writes, and progress."""
