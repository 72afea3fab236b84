"""What awaitelect costs, measured on whole real processes. `python -m tests.bench` prints a table."""
