"""What tools/benchmark.py times: adaptive networks beside what a user would run in their place."""

from .. import requirements

requirements.check((*requirements.CORE, *requirements.FRAMEWORK))
