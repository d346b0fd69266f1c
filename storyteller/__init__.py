"""storyteller tells little stories about photographs."""

__version__ = '1.0.0'
