"""Videos of lists, folders and patterns: probed, decoded, named where they are broken."""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))

with requirements.explained():
    from .. import compat

    compat.apply()
