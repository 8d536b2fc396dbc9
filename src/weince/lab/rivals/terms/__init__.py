"""InfoNCE or WEINCE with a term added."""
