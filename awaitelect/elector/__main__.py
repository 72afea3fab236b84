"""`python -m awaitelect.elector`: started by the keeper, never by hand."""

from awaitelect.elector.app import main

main()
