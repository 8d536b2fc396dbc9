"""What a comparison shows: tables, figures, one page."""
