"""What the user declares, read and checked without the weight of TensorFlow, pandas or NumPy."""
