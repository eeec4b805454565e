"""Activation patching: does a concept's residual stream mean the same in another language?"""
