"""Every annotated shape and type of the package is checked at run time while the tests run."""

from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything imports videogpa: only modules imported from here on are checked.
install_import_hook("videogpa", "beartype.beartype")

# A shared machine is slow at times; no test of this project is about time.
settings.register_profile("videogpa", deadline=None, derandomize=True)
settings.load_profile("videogpa")
