"""See command.py."""

import sys

from orchestrator.doctor.command import main

sys.exit(main(sys.argv[1:]))
