"""awaitelect starts a command only while this instance is the elected leader."""

__version__ = "0.1.0"
