"""What the champion is worth when events become visible later than declared."""
