"""The TF Serving gRPC API without TensorFlow: messages, services and tensor codecs."""

from pathlib import Path

DESCRIPTOR_FILE = Path(__file__).with_name("tf_serving.pb")
"""The stored FileDescriptorSet: `generate` writes it, `messages` loads it."""
