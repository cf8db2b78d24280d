"""A model on disk and on the Hub: its configuration, its registry row, its folder, its repository."""
