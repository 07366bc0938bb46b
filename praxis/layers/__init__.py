"""Layers, gathered under their public names; each is imported when it is first used.

The names stand in `__init__.pyi`, for type checkers and for the loader.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
