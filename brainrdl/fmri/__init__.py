"""From scanner files to RDMs: responses by trial, patterns, dissimilarities, reliability."""
