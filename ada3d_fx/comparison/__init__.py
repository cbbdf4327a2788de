"""Rows of tools/compare.py and tools/tradeoff.py: trained, tested, kept, and set beside each other."""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))
