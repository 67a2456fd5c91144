"""How fast decoders are on this machine, alone and beside PyTorch code in clones of the user's.

sizes -> model and weights; decoders -> what is compared; measure -> one decoder's times; reference -> the other side;
run -> a whole benchmark; report -> what people read.
"""
