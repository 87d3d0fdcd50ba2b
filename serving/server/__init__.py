"""Embedded gRPC server that speaks TF Serving's PredictionService and ModelService."""
