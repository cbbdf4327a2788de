"""By which command, from which files and by which code a result was made."""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))
