"""What is learned: specs, preprocessing, architectures, training and export."""
