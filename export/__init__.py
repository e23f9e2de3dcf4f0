"""Export: from a checkpoint to a Bundle, and from a Bundle to a session."""

import os

# From 1.29 on, onnxruntime sends events of each process to Microsoft, and keeps a device id below the user's home
# directory. It reads this when it is imported, which only modules of this package do. An operator may set 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
