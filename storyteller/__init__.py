"""storyteller tells little stories about photographs."""

__version__ = '0.1.0'
