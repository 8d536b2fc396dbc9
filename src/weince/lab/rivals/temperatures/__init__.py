"""InfoNCE whose temperature is learnt or measured."""
