"""What is measured about speed: side by side, on the machine that each result describes."""
