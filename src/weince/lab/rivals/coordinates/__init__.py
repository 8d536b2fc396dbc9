"""InfoNCE whose logit is another function of the similarity."""
