"""Before anything imports torch: its threads must not spin on cores that other threads and processes want."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
