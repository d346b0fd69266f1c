"""storyteller tells little stories about photographs."""

from typing import TYPE_CHECKING, Any

__all__ = ['Storyteller', '__version__']
__version__ = '1.0.0'

if TYPE_CHECKING:  # which would otherwise take any name for one that may be there
    from .teller import Storyteller
else:

    def __getattr__(name: str) -> Any:
        """`Storyteller`, imported once it is asked for: torch, which it needs, takes a while."""
        if name == 'Storyteller':
            from .teller import Storyteller

            globals()[name] = Storyteller
            return Storyteller
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
