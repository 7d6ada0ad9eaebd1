"""What a person sees of the scores: tables, plots, films, pictures, one page."""
