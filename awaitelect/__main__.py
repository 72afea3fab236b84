"""`python -m awaitelect`."""

from awaitelect.cli import main

main()
