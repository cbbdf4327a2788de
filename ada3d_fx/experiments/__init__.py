"""What the larger tools do."""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))
