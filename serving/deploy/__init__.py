"""Files that run a pushed model under TF Serving."""
