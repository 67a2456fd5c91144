"""The rules a decoder is made of, each a frozen value that answers one question of a step."""
