"""Sums over a vocabulary: belief, nucleus, the largest logits, the draw."""
