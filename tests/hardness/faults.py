"""What goes wrong inside a command's process, set up before the command begins."""
