"""The embedded server: TF Serving's API around TensorFlow sessions, in one or several processes."""

import os

# gRPC reads this when it is first imported. Without its event engine, the thread that takes calls
# in reads and writes their connections itself, instead of waking two more threads for each call: a
# refusal costs a third of what it did.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
