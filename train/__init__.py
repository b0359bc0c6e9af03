"""What runs on the GPU machine: a recipe and a checkpoint in, a better checkpoint out.

Knows nothing of the laptop.
"""
