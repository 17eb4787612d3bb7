"""The pages that show experiments in a browser, served on luigid's port."""
